"""Guards: an authority that is set up anew lets the calls under way end, and keeps nobody waiting who comes later."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from certrenewal.domain.authority import AuthoritySpec
from certrenewal.stepca.authority import Authority
from certrenewal.stepca.errors import Unreachable
from certrenewal.stepca.transport import Transport


class Slow:
    """A CA that answers when it is told to."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.closed = False

    async def call(self, *_: Any, **__: Any) -> dict[str, Any]:
        """An answer, in the end."""
        await self.answers.wait()
        return {}

    async def close(self) -> None:
        """No more calls."""
        self.closed = True


async def test_a_call_is_ended_and_those_after_it_are_told() -> None:
    ca = Slow()
    spec = AuthoritySpec(url="https://ca.test", concurrency=2)
    authority = Authority(
        spec, pinned=(), named=(), intermediates=(), transport=cast("Transport", ca), provisioner=None
    )
    under_way = asyncio.create_task(authority.burn("token"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(authority.close())
    await asyncio.sleep(0)
    early = ca.closed
    ca.answers.set()

    async with asyncio.timeout(5):
        await closing
        with pytest.raises(Unreachable, match="set up again") as told:
            await authority.burn("token")

    assert await under_way
    assert not early
    assert told.value.answered  # it says nothing of the one in its place
