"""How many may go in a minute, of restarts or of requests? A bucket that fills steadily."""

from __future__ import annotations

import math
from datetime import datetime, timedelta


class Bucket:
    """Lets ``per_minute`` through, spread over the minute; 0 lets everything through.

    So many at once as ``burst`` says: a quarter of a minute's worth, where nothing else is said.
    """

    def __init__(self, per_minute: int, *, burst: int | None = None) -> None:
        self._interval = timedelta(minutes=1) / per_minute if per_minute else timedelta(0)
        at_once = math.ceil(per_minute / 4) if burst is None else burst
        self._burst = self._interval * max(at_once - 1, 0)
        self._full_at: datetime | None = None  # when it would be full again, if nothing was taken

    def free_at(self, now: datetime) -> datetime:
        """When the next one may go, ``now`` where it may at once."""
        return max(now, self._full_at - self._burst) if self._full_at else now

    def is_full(self, now: datetime) -> bool:
        """Whether nothing of what was taken counts any more."""
        return self._full_at is None or self._full_at <= now

    def take(self, now: datetime) -> None:
        """Let one through."""
        if self._interval:
            self._full_at = max(now, self._full_at or now) + self._interval

    def give_back(self) -> None:
        """The one that was let through did not go."""
        if self._full_at:
            self._full_at -= self._interval
