"""Which certificate is looked at next? One heap of due times; of those that are due, the most urgent first."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

from certrenewal.controller.cache import Key

# The longest sleep: a host that was suspended, or whose clock was set, is noticed within this many seconds.
LONGEST_SLEEP = 5.0


@dataclass(slots=True)
class _Entry:
    due: float  # seconds since the epoch
    ticket: int = 0  # of the only heap item that counts


class Schedule:
    """Keys with a due time. A key is handed to one worker at a time; news meanwhile brings it back at once."""

    def __init__(self, urgency: Callable[[Key], float], clock: Callable[[], float] = time.time) -> None:
        self._urgency = urgency
        self._clock = clock
        self._tickets = itertools.count(1)
        self._entries: dict[Key, _Entry] = {}
        self._waiting: list[tuple[float, int, Key]] = []
        self._ready: list[tuple[float, int, Key]] = []
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._closed = False
        self._news = asyncio.Event()
        self._idle = asyncio.Event()

    def __len__(self) -> int:
        return len(self._entries)

    def poke(self, key: Key) -> None:
        """Look at ``key`` as soon as a worker is free."""
        entry = self._entries.get(key)
        if key in self._running:
            self._again.add(key)
        elif entry is None or entry.due > self._clock():
            self._put(key, self._clock())

    def finish(self, key: Key, due: float | None) -> None:
        """The look at ``key`` ended; the next is at ``due``, at once if there was news, or never (None)."""
        self._running.discard(key)
        if not self._running:
            self._idle.set()
        if key in self._again:
            self._again.discard(key)
            self._put(key, self._clock())
        elif due is not None:
            self._put(key, due)
        else:
            self._entries.pop(key, None)

    async def next(self) -> Key:
        """Wait for the most urgent key that is due, and take it."""
        while True:
            self._promote()
            if not self._closed and (key := self._take()) is not None:
                self._running.add(key)
                self._idle.clear()
                return key
            self._news.clear()
            sleep = min(self._waiting[0][0] - self._clock(), LONGEST_SLEEP) if self._waiting else LONGEST_SLEEP
            # Not wait_for: until Python 3.12 it loses a cancellation that comes together with the news.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(sleep, 0.001)):
                    await self._news.wait()

    async def close(self) -> None:
        """Hand out no more keys, and return once every look under way has ended."""
        self._closed = True
        if self._running:
            await self._idle.wait()

    def _put(self, key: Key, due: float) -> None:
        ticket = next(self._tickets)
        self._entries[key] = _Entry(due, ticket)
        heapq.heappush(self._waiting, (due, ticket, key))
        self._shrink()
        self._news.set()

    def _promote(self) -> None:
        now = self._clock()
        while self._waiting and self._waiting[0][0] <= now:
            _, ticket, key = heapq.heappop(self._waiting)
            if self._counts(key, ticket):
                heapq.heappush(self._ready, (self._urgency(key), ticket, key))

    def _take(self) -> Key | None:
        while self._ready:
            _, ticket, key = heapq.heappop(self._ready)
            if self._counts(key, ticket):
                return key
        return None

    def _counts(self, key: Key, ticket: int) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.ticket == ticket

    def _shrink(self) -> None:
        """Drop the items that no longer count, once they are the majority."""
        if len(self._waiting) > 64 and len(self._waiting) > 2 * len(self._entries):
            self._waiting = [item for item in self._waiting if self._counts(item[2], item[1])]
            heapq.heapify(self._waiting)
