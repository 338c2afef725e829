"""The certificates that a CertRenewal had, in little memory: the latest as it is, the others as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

Entry = Mapping[str, Any]


class History:
    """Reads like the list that it stands for, as far as that is read.

    A dozen dictionaries for each of ten thousand certificates would be most of what the operator holds, and all but
    the latest are read once a certificate.
    """

    __slots__ = ("_latest", "_others", "_size")

    def __init__(self, entries: Sequence[Entry]) -> None:
        """``entries``: the latest first, at least one."""
        self._latest = entries[0]
        self._others = _text(entries)
        self._size = len(entries)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Entry]:
        yield self._latest
        if self._size > 1:
            yield from orjson.loads(self._others)

    def __getitem__(self, index: int) -> Entry:
        return self._latest if index == 0 else list(self)[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History | list) or len(self) != len(other) or self._latest != other[0]:
            return False
        others = other._others if isinstance(other, History) else _text(other)
        return self._others == others or list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def _text(entries: Sequence[Entry]) -> bytes:
    """All but the latest."""
    return bytes(memoryview(orjson.dumps(entries[1:])))  # a copy: what it gives takes thrice its length
