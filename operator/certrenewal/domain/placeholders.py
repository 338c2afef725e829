"""Which ``$(name)`` may stand in a hook, and how is each replaced?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_PLACEHOLDER = re.compile(r"(\$?)\$\(([^()]*)\)")
IN_URL = ("serial", "notAfter", "name", "namespace")
IN_BODY = ("tls.crt", "tls.key", "ca.crt", *IN_URL)


def unknown(text: str, known: Iterable[str]) -> str | None:
    """The first placeholder that is not ``known``; None where there is none."""
    names = (found[2] for found in _PLACEHOLDER.finditer(text) if not found[1])
    return next((name for name in names if name not in known), None)


def substituted(text: str, texts: Mapping[str, str]) -> str:
    """With each ``$(name)`` replaced; ``$$(name)`` stands for ``$(name)`` itself, as in Kubernetes' own fields."""
    return _PLACEHOLDER.sub(lambda found: found[0][1:] if found[1] else texts[found[2]], text)


def strings(value: Any) -> Iterator[str]:
    """Every string of a JSON value, without the names of members."""
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from strings(item)
        case dict():
            yield from strings([*value.values()])


def each_string(value: Any, change: Callable[[str], str]) -> Any:
    """The same JSON value with each of its strings changed."""
    match value:
        case str():
            return change(value)
        case list():
            return [each_string(item, change) for item in value]
        case dict():
            return {name: each_string(item, change) for name, item in value.items()}
    return value
