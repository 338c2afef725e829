"""When may a workload be restarted: a cron expression, how long the window stays open, and whose clock counts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from certrenewal.domain.durations import parse_duration

_TEXT = re.compile(r"(?P<schedule>.+?)\s+for\s+(?P<duration>\S+)(\s+in\s+(?P<zone>\S+))?")
_ANY_TIME = datetime(2026, 1, 1)  # noqa: DTZ001 - where a schedule is tried, no zone matters


@dataclass(frozen=True, slots=True)
class Window:
    """Opens at each match of ``schedule`` in ``zone``, and stays open for ``duration``."""

    schedule: str
    duration: timedelta
    zone: str = "UTC"

    def opening(self, now: datetime) -> datetime:
        """``now`` while it is open, else when it opens next."""
        zone = ZoneInfo(self.zone)
        last_open = now - self.duration
        opened = next(CronSim(self.schedule, last_open.astimezone(zone)))
        return max(opened.astimezone(now.tzinfo), now)


def parse_window(text: str) -> Window:
    """Read ``0 2 * * 1-5 for 4h in Europe/Berlin``; ValueError says what would be right."""
    parts = _TEXT.fullmatch(text.strip())
    if parts is None:
        raise ValueError("write a cron expression, how long, and a time zone: 0 2 * * * for 4h in Europe/Berlin")
    schedule, zone = parts["schedule"], parts["zone"] or "UTC"
    try:
        next(CronSim(schedule, _ANY_TIME))
    except (CronSimError, StopIteration):
        raise ValueError(f"{schedule!r} is no cron expression of five fields that ever matches") from None
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, OSError, ValueError):  # not found, a directory, malformed
        raise ValueError(f"there is no time zone {zone!r}: write one such as Europe/Berlin, or UTC") from None
    return Window(schedule, parse_duration(parts["duration"]), zone)
