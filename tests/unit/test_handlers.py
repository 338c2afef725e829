"""Guard: kopf starts where the user has no name, as in the image, whose user is a number alone."""

from __future__ import annotations

import asyncio
import getpass

import pytest
from kubernetes.aio.client import Configuration

from certrenewal.controller import handlers
from certrenewal.controller.operator import Operator
from certrenewal.settings import Settings


async def test_a_user_without_a_name_keeps_nobody_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    async def begin() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def end() -> None:
        """Nothing was started."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")  # an OSError since Python 3.13

    monkeypatch.delenv("POD_ID", raising=False)  # kopf would take that for its identity
    monkeypatch.setattr(getpass, "getuser", nameless)
    operator = Operator(Settings(identity="certrenewal-0"), Configuration())
    monkeypatch.setattr(operator, "start", begin)
    monkeypatch.setattr(operator, "stop", end)

    running = asyncio.create_task(handlers.run(operator))
    starting = asyncio.create_task(begun.wait())
    await asyncio.wait([running, starting], return_when=asyncio.FIRST_COMPLETED)

    assert begun.is_set(), running
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
