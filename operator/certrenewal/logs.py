"""How does the operator write its log: one JSON object a line, a constant message and fields."""

from __future__ import annotations

import logging

from pythonjsonlogger.json import JsonFormatter

# These print object bodies, patches or tokens when they are talkative.
_QUIET = ("kopf", "kubernetes", "aiohttp", "asyncio")


def configure(level: str) -> None:
    """Log to stderr from ``level`` up. Libraries that could print what they handle stay at WARNING."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter(
            "{levelname}{name}{message}",
            style="{",
            timestamp="time",
            rename_fields={"levelname": "level", "name": "logger"},
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
