"""Guards: a ConfigMap with roots is healed, and removed, whatever the order in which the watch shows what was done."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

from certrenewal.controller.bundles import Bundles
from tests.unit.builders import a_root, an_authority


class Edited:
    """An API server whose watch shows an edit by somebody else before it answers the write that was edited."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.bundles: Bundles | None = None
        self.healed = asyncio.Event()

    async def put_config_map(self, namespace: str, name: str, content: dict[str, Any], **_: Any) -> dict[str, Any]:
        """The ConfigMap as it was written."""
        body = {**content, "metadata": {**content["metadata"], "namespace": namespace, "name": name, "uid": "u"}}
        self.written.append(content["data"]["ca.crt"])
        if len(self.written) == 1:
            assert self.bundles is not None
            self.bundles.see_config_map({**body, "data": {"ca.crt": "garbage"}})
        else:
            self.healed.set()
        return body


async def test_an_edit_that_the_watch_shows_before_the_answer_is_healed() -> None:
    server = Edited()
    store: Any = server
    server.bundles = bundles = Bundles(
        store=store, reporter=mock.Mock(), leads=lambda: True, view=lambda _: an_authority(), namespaces=()
    )
    task = asyncio.create_task(bundles.run())
    try:
        bundles.see_namespace("shop", {"certrenewal.dev/roots": "default"})
        async with asyncio.timeout(5):
            await server.healed.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert server.written == [a_root().pem.decode()] * 2


async def test_a_config_map_is_not_lost_with_the_one_that_had_its_name_before() -> None:
    removed = asyncio.Event()
    store = mock.Mock(delete_config_map=mock.AsyncMock(side_effect=lambda *_: removed.set()))
    bundles = Bundles(store=store, reporter=mock.Mock(), leads=lambda: True, view=lambda _: None, namespaces=())
    metadata = {
        "namespace": "shop",
        "name": "certrenewal-roots-default",
        "labels": {"certrenewal.dev/roots": "default"},
    }
    for uid in ("before", "now"):
        bundles.see_config_map({"metadata": {**metadata, "uid": uid}})

    bundles.lose_config_map({"metadata": {**metadata, "uid": "before"}})
    task = asyncio.create_task(bundles.run())
    try:
        async with asyncio.timeout(5):
            await removed.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    store.delete_config_map.assert_called_once_with("shop", "certrenewal-roots-default", "now")
