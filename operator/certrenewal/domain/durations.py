"""How are Go durations such as ``1h30m`` read and written: the form that step-ca and Kubernetes users know."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"ns": 0.001, "us": 1.0, "µs": 1.0, "μs": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_MOST_CHARACTERS = 64  # reading takes time by their square
_LONGEST = timedelta(days=365 * 290)  # a Go duration is an int64 of nanoseconds


def parse_duration(text: str) -> timedelta:
    """Read a positive Go duration, to the microsecond; ValueError says what would be right."""
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"a duration has at most {_MOST_CHARACTERS} characters: write it like 24h, 90m or 1h30m")
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration: write it like 24h, 90m or 1h30m (there is no unit for days)")
    microseconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0.5 < microseconds <= _LONGEST / timedelta(microseconds=1):
        raise ValueError(f"{text!r} is out of range: a duration is positive and below 290 years")
    return timedelta(microseconds=microseconds)


def format_duration(duration: timedelta) -> str:
    """Write a duration that Go reads back to the same microsecond, in the largest whole units."""
    microseconds = duration // timedelta(microseconds=1)
    hours, rest = divmod(microseconds, 3_600_000_000)
    minutes, rest = divmod(rest, 60_000_000)
    seconds, fraction = divmod(rest, 1_000_000)
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")
    if fraction:
        return f"{text}{seconds}.{fraction:06}s"
    return text + (f"{seconds}s" if seconds or not text else "")
