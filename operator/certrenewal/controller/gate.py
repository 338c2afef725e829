"""Who may ask one authority now: as many at a time as it allows and one more, the nearest expiry first.

The one more gets its request ready meanwhile, and waits inside. A look that is not let in ends, so that a CA that is
slow keeps no worker from the certificates of another one.
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
        self._called: set[Key] = set()  # a place is kept for each, until it enters or is forgotten
        self._outside: dict[Key, float] = {}
        self._order: list[tuple[float, Key]] = []  # a heap of all outside, and of some that are not there any more

    def knock(self, key: Key, urgency: float) -> bool:
        """Whether there is a place for ``key``, to ``enter`` or to ``forget``; if not, it is called back."""
        if key in self._called:
            return True
        if self._outside.get(key) != urgency:
            self._outside[key] = urgency
            heapq.heappush(self._order, (urgency, key))
        self._fill(but=key)
        return key in self._called

    def enter(self, key: Key, urgency: float) -> bool:
        """Whether ``key`` may ask now; if not, it is called back."""
        if not self.knock(key, urgency):
            return False
        self._called.discard(key)
        self._inside.add(key)
        return True

    def leave(self, key: Key) -> None:
        """``key`` has its answer: the most urgent of those outside are called."""
        self._inside.discard(key)
        self._fill()

    def forget(self, key: Key) -> None:
        """``key`` was looked at and has nothing to ask any more."""
        self._outside.pop(key, None)
        self._called.discard(key)
        self._fill()

    def _fill(self, *, but: Key | None = None) -> None:
        """Keep the free places for the most urgent outside, and call these back; not ``but``, who is here."""
        while self._order and len(self._inside) + len(self._called) < self.size:
            urgency, key = heapq.heappop(self._order)
            if self._outside.get(key) != urgency:
                continue
            del self._outside[key]
            self._called.add(key)
            if key != but:
                self._call_back(key)
