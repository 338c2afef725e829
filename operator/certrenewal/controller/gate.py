"""Who may ask one authority now: as many at a time as it allows, the nearest expiry first, and nobody waits inside.

A look that is not let in ends, so that a CA that is slow keeps no worker from the certificates of another one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from certrenewal.controller.cache import Key


class Gate:
    """Lets ``size`` looks through at a time; those turned away are called back when a place is free."""

    def __init__(self, call_back: Callable[[Key], None]) -> None:
        self.size = 1
        self._call_back = call_back
        self._inside: set[Key] = set()
        self._outside: dict[Key, float] = {}
        self._order: list[tuple[float, Key]] = []  # a heap of all outside, and of some that are not there any more

    def knock(self, key: Key, urgency: float) -> bool:
        """Whether there is a place for ``key``, to ``enter`` or to ``forget``; if not, it is called back."""
        if self._outside.get(key) != urgency:
            self._outside[key] = urgency
            heapq.heappush(self._order, (urgency, key))
        return key in self._next()

    def enter(self, key: Key, urgency: float) -> bool:
        """Whether ``key`` may ask now; if not, it is called back."""
        if not self.knock(key, urgency):
            return False
        del self._outside[key]
        self._inside.add(key)
        return True

    def leave(self, key: Key) -> None:
        """``key`` has its answer: the most urgent of those outside are called."""
        self._inside.discard(key)
        for waiting in self._next():
            self._call_back(waiting)

    def forget(self, key: Key) -> None:
        """``key`` was looked at and has nothing to ask any more."""
        if self._outside.pop(key, None) is not None:
            for waiting in self._next():
                self._call_back(waiting)

    def _next(self) -> list[Key]:
        """Those outside for whom there is room."""
        found: dict[Key, float] = {}
        while self._order and len(found) < self.size - len(self._inside):
            urgency, key = heapq.heappop(self._order)
            if self._outside.get(key) == urgency:
                found[key] = urgency
        for key, urgency in found.items():
            heapq.heappush(self._order, (urgency, key))
        return list(found)
