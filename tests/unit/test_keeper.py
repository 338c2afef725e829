"""Guards: an authority is the one that its object asks for, whenever that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from certrenewal.controller import keeper as keepers
from certrenewal.controller.gate import Gate
from certrenewal.controller.keeper import AuthorityObject, Keeper
from certrenewal.domain.authority import AuthoritySpec
from tests.unit.builders import NOON, a_root

ROOT = a_root().certificate
OLD, NEW = "https://old.test", "https://new.test"


def seen(url: str, generation: int) -> AuthorityObject:
    """A CertAuthority that asks for the CA there."""
    spec = {"url": url, "caBundle": a_root().pem.decode()}
    return AuthorityObject(name="default", uid="u", generation=generation, spec=spec, status={})


class Built:
    """An authority; ``meanwhile`` happens while the CA is asked whether it is the same, which it is no more then."""

    pinned = named = (ROOT,)
    intermediates = ()
    provisioner = skew = down = None

    def __init__(self, spec: AuthoritySpec, meanwhile: Callable[[], object] | None) -> None:
        self.spec = spec
        self._meanwhile = meanwhile

    async def probe(self) -> None:
        """It answers."""

    async def is_current(self) -> bool:
        """Whether it names the same intermediates."""
        if self._meanwhile is None:
            return True
        self._meanwhile()
        return False

    async def close(self) -> None:
        """Nothing is open."""


async def test_an_object_that_changes_while_the_ca_is_asked_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    first, last = asyncio.Event(), asyncio.Event()

    async def connect(spec: AuthoritySpec, *_: Any, **__: Any) -> Built:
        built.append(spec.url)
        (last if spec.url == NEW else first).set()
        return Built(spec, (lambda: keeper.see(seen(NEW, 2))) if len(built) == 1 else None)

    monkeypatch.setattr(keepers, "connect", connect)
    keeper = Keeper(
        seen(OLD, 1),
        store=mock.Mock(),
        reporter=mock.Mock(),
        leads=lambda: False,
        clock=lambda: NOON,
        changed=lambda: None,
        needed=lambda: None,
        gate=Gate(lambda _: None),
    )
    task = asyncio.create_task(keeper.run())
    try:
        async with asyncio.timeout(5):
            await first.wait()
            keeper.wake()
            await last.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert built == [OLD, OLD, NEW]
