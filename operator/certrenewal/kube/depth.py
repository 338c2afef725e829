"""How deep may an answer of the API server nest? What goes deeper than anybody here follows is read as null.

A field of any shape takes ten thousand levels, more than Python's parser and most that walk what it gives. One object
of one user would otherwise end the watch that shows it, and everybody's with it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

DEEPEST = 200

_OPENING: Final = (b"{", b"[")
_NO_STRUCTURE: Final = bytes(set(range(256)) - set(b'{}[]"'))
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"')
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def loads(text: bytes) -> Any:
    """The JSON value, as deep as it can be read."""
    try:
        return json.loads(text)
    except RecursionError:
        return json.loads(_cut(text))


def shallow(text: bytes) -> bytes:
    """The same JSON where it nests no deeper than `DEEPEST`; else with null for what goes below."""
    return _cut(text) if sum(map(text.count, _OPENING)) > DEEPEST and _is_deep(text) else text


def _is_deep(text: bytes) -> bool:
    """Whether brackets are left when as many levels were peeled off, in steps that need no loop over characters."""
    rest = _STRING.sub(b"", _ESCAPED.sub(b"", text).translate(None, _NO_STRUCTURE))
    for _ in range(DEEPEST):
        if not rest:
            return False
        rest = rest.replace(b"{}", b"").replace(b"[]", b"")
    return bool(rest)


def _cut(text: bytes) -> bytes:
    kept: list[bytes] = []
    depth = begin = 0
    for token in _TOKEN.finditer(text):
        if token[0] in _OPENING:
            depth += 1
            if depth == DEEPEST + 1:
                kept += text[begin : token.start()], b"null"
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == DEEPEST:
                begin = token.end()
    return b"".join((*kept, text[begin:]))
