"""When may a workload be restarted: a cron expression, how long the window stays open, and whose clock counts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from certrenewal.domain.durations import parse_duration

_TEXT = re.compile(r"(?P<schedule>.+?)\s+for\s+(?P<duration>\S+)(\s+in\s+(?P<zone>\S+))?")
LONGEST_TEXT = 256  # as in the CRD; what is longer would also take long to read
_ANY_TIME = datetime(2026, 1, 1)  # noqa: DTZ001 - where a schedule is tried, no zone matters


@dataclass(frozen=True, slots=True)
class Window:
    """Opens at each match of ``schedule`` in ``zone``, and stays open for ``duration``."""

    schedule: str
    duration: timedelta
    zone: str = "UTC"

    def opening(self, now: datetime) -> datetime:
        """``now`` while it is open, else when it opens next, in the zone of ``now``."""
        moment = now.astimezone(UTC)  # not by the clock on the wall, which jumps
        last_open = moment - self.duration
        openings = CronSim(self.schedule, last_open.astimezone(ZoneInfo(self.zone)))
        opened = next(at for at in openings if at > last_open)  # an hour that comes twice counts once
        return max(opened.astimezone(UTC), moment).astimezone(now.tzinfo)


def parse_window(text: str) -> Window:
    """Read ``0 2 * * 1-5 for 4h in Europe/Berlin``; ValueError says what would be right."""
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a window is no longer than {LONGEST_TEXT} characters")
    parts = _TEXT.fullmatch(text.strip())
    if parts is None:
        raise ValueError("write a cron expression, how long, and a time zone: 0 2 * * * for 4h in Europe/Berlin")
    schedule, zone = parts["schedule"], parts["zone"] or "UTC"
    if len(schedule.split()) != 5 or not _matches(schedule):
        raise ValueError(f"{schedule!r} is no cron expression of five fields that ever matches")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, OSError, ValueError):  # not found, a directory, malformed
        raise ValueError(f"there is no time zone {zone!r}: write one such as Europe/Berlin, or UTC") from None
    return Window(schedule, parse_duration(parts["duration"]), zone)


def _matches(schedule: str) -> bool:
    try:
        return next(CronSim(schedule, _ANY_TIME)) > _ANY_TIME
    except (CronSimError, StopIteration):
        return False
