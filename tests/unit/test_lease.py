"""Guards: who reads that another holds the Lease acts no more, whatever it believed before."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from certrenewal.kube.client import Client, Object
from certrenewal.kube.errors import NotFound
from certrenewal.kube.lease import Elector


class Server:
    """Keeps one Lease."""

    def __init__(self) -> None:
        self.lease: Object | None = None

    async def request(self, method: str, path: str, *, body: Object | None = None, **_: Any) -> Object:
        """GET, POST and PUT of it."""
        if body is not None:
            self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}
        if self.lease is None:
            raise NotFound(path)
        return self.lease


async def test_who_lost_the_lease_acts_no_more() -> None:
    server = Server()
    elector = Elector(cast("Client", server), namespace="default", name="certrenewal", identity="a")
    await elector._attempt()
    led = elector.leads
    assert server.lease is not None
    server.lease["spec"] = {**server.lease["spec"], "holderIdentity": "b", "acquireTime": "later"}

    await elector._attempt()

    assert led
    assert not elector.leads


async def test_the_end_of_leading_is_awaited() -> None:
    server = Server()
    elector = Elector(cast("Client", server), namespace="default", name="certrenewal", identity="a")
    running = asyncio.create_task(elector.run())
    async with asyncio.timeout(5):
        await elector.until_leading()
        waiting = asyncio.create_task(elector.until_not_leading())
        await asyncio.sleep(0)
        early = waiting.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        elector._changed.set()
        await waiting

    assert not early
