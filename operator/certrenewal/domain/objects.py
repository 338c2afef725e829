"""What may an object of Kubernetes be called, and a key in its data?"""

from __future__ import annotations

import re

_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DATA_KEY = re.compile(r"(?!\.\.)(?!\.$)[-._a-zA-Z0-9]{1,253}")


def is_object_name(text: str) -> bool:
    """Whether an object may have that name (RFC 1123 subdomain). One that may not could lead a path elsewhere."""
    return _NAME.fullmatch(text) is not None


def object_name(text: str) -> str:
    """Read the name of an object; ValueError says what would be right."""
    if not is_object_name(text):
        raise ValueError("write the name of a Kubernetes object: lower-case letters, digits, '-' and '.'")
    return text


def data_key(text: str) -> str:
    """Read a key in the data of a Secret; ValueError says what would be right."""
    if not _DATA_KEY.fullmatch(text):
        raise ValueError("keys of a Secret hold letters, digits, '-', '_' and '.'")
    return text
