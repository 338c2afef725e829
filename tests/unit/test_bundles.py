"""Guards: a ConfigMap with roots is healed even where somebody edits it before the answer to our write is there."""

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
