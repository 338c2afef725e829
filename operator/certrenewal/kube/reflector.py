"""What is in a collection, and what happens to it? A list in pages, then one watch after the other, for ever.

For the kinds of which a cluster has tens of thousands: kopf keeps some three kilobytes for each object that it has ever
seen, and copies each that changes. Nothing is kept here, and an object that vanished unseen is told of after a list.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from certrenewal.kube.client import Object
from certrenewal.kube.depth import loads, shallow
from certrenewal.kube.watching import SERVER_TIMEOUT

log = logging.getLogger(__name__)

PAGE = 250
ABSENT_PAUSE = 15.0  # seconds between two looks for a kind that is not installed
LONGEST_PAUSE = 15.0
MOST_REFUSALS = 5  # in some 15 s, before a kind counts as one that is not shown to us
LIST_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=SERVER_TIMEOUT + 30, sock_connect=10)

See = Callable[[str, Mapping[str, Any]], None]


class _Failed(Exception):
    """The API server refused, or ended, what was asked for."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Reflector:
    """Shows all objects of one collection, and each of their changes, to one function."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        see: See,
        known: Callable[[], Iterable[tuple[str, str]]],
        query: Mapping[str, str] | None = None,
        may_be_absent: bool = False,
    ) -> None:
        """``see`` gets the kind of the change, ADDED, MODIFIED or DELETED, and the object.

        ``known`` are the namespaces and names that count as there: those that a list does not have are told of as
        deleted, by these two alone. ``may_be_absent``: the kind need not be installed, or shown to us.
        """
        self._session = session
        self._url = url
        self._see = see
        self._known = known
        self._query = dict(query or {})
        self._may_be_absent = may_be_absent
        self._about: Object = {}  # apiVersion and kind, which the items of a list lack
        self._failures = 0  # since a watch last worked
        self._told = ""
        self._version = ""  # up to which everything was shown; "" where a list has to come first
        self.listed = asyncio.Event()  # all was shown that was there at the start; or the kind is absent

    async def run(self) -> None:
        """Follow the collection, through whatever happens to the API server."""
        while True:
            try:
                if not self._version:
                    self._version = await self._list()
                await self._watch()
                self._failures = 0
            except (_Failed, aiohttp.ClientError, OSError, ValueError, KeyError) as failure:
                if not isinstance(failure, aiohttp.ClientError | OSError):
                    self._version = ""  # a connection that broke is taken up where it was, all else begins anew
                self._failures += 1
                await asyncio.sleep(self._pause(failure))

    def _pause(self, failure: Exception) -> float:
        """How long to wait after a failure, of which the log tells once for each cause."""
        status = failure.status if isinstance(failure, _Failed) else 0
        if status == http.HTTPStatus.GONE and self._failures == 1:
            return 0.0  # too old to be followed: listed anew
        gone = self._may_be_absent and status == http.HTTPStatus.NOT_FOUND
        # An API server that just started forbids what it will allow, until it has read the roles.
        refused = self._may_be_absent and status == http.HTTPStatus.FORBIDDEN and self._failures > MOST_REFUSALS
        words = str(failure) if isinstance(failure, _Failed) else type(failure).__name__
        if gone:
            self._forget_all_but(set())
        if gone or refused:
            self.listed.set()
        if words != self._told:
            log.warning("a collection cannot be followed, and is asked for again", extra=self._extra(error=words))
            self._told = words
        return ABSENT_PAUSE if gone or refused else min(0.25 * 2 ** min(self._failures, 10), LONGEST_PAUSE)

    async def _list(self) -> str:
        """Show all that is there; the version that a watch follows."""
        there: set[tuple[str, str]] = set()
        query = {**self._query, "limit": str(PAGE)}
        while True:
            async with self._get(query, LIST_TIMEOUT) as response:
                page = loads(shallow(await response.read()))
            self._about = {"apiVersion": page["apiVersion"], "kind": page["kind"].removesuffix("List")}
            for item in page.get("items") or ():  # the API server writes an empty list of metadata as null
                there.add(_place(item))
                self._show("ADDED", self._about | item)
            following = page["metadata"].get("continue")
            if not following:
                break
            query["continue"] = following
        self._forget_all_but(there)
        self._recover()
        self.listed.set()
        return str(page["metadata"]["resourceVersion"])

    async def _watch(self) -> None:
        """Show every change until the server ends the watch."""
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(SERVER_TIMEOUT),
        }
        async with self._get(query, WATCH_TIMEOUT) as response:
            async for line in response.content:
                self._failures = 0
                self._recover()
                event = loads(shallow(line))
                kind, item = event["type"], event["object"]
                if kind == "ERROR":
                    raise _Failed(int(item.get("code") or 500), str(item.get("message")))
                if kind != "BOOKMARK":
                    self._show(kind, item)
                self._version = item["metadata"]["resourceVersion"]

    def _recover(self) -> None:
        """It works, again or still."""
        if self._told:
            log.info("a collection is followed again", extra=self._extra())
            self._told = ""

    @asynccontextmanager
    async def _get(
        self, query: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self._session.get(self._url, params=query, timeout=timeout) as response:
            if response.status != http.HTTPStatus.OK:
                raise _Failed(response.status, f"{response.status} {(await response.text())[:200]}")
            yield response

    def _show(self, kind: str, item: Object) -> None:
        """Show one object: one that is not understood must not cost the others their changes."""
        try:
            self._see(kind, item)
        except Exception:
            # Its body stays out of the log.
            log.exception("object not understood", extra=self._extra(object="/".join(_place(item))))

    def _forget_all_but(self, there: set[tuple[str, str]]) -> None:
        for namespace, name in set(self._known()) - there:
            self._show("DELETED", {**self._about, "metadata": {"namespace": namespace, "name": name}})

    def _extra(self, **more: str) -> dict[str, str]:
        return {"collection": self._url, **more}


def _place(item: Mapping[str, Any]) -> tuple[str, str]:
    """Namespace ("" where it has none) and name."""
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]
