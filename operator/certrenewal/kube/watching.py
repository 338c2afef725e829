"""Are the watches alive? Each LIST and WATCH passes through one session, which remembers when it last saw them."""

from __future__ import annotations

import asyncio
import http
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from certrenewal.kube.client import authorization
from certrenewal.kube.depth import loads, shallow

# The server ends each watch after this many seconds, so that a watch not opened again for long is a dead one.
SERVER_TIMEOUT = 300
OVERDUE = 3 * SERVER_TIMEOUT

_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_WATCH = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class _Answer(aiohttp.ClientResponse):
    """An answer whose list of items is a list: the API server writes an empty one of metadata as null."""

    async def json(self, **options: Any) -> Any:
        content = await super().json(**{**options, "loads": _loads})
        if isinstance(content, dict) and content.get("items", ()) is None:
            content["items"] = []
        return content


def _loads(text: str) -> Any:
    return loads(text.encode())


class _Lines:
    """The body of a watch, by whole lines, of which none nests deeper than can be read. All else is aiohttp's."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """As kopf reads it."""
        begun = b""
        async for chunk in self._content.iter_chunked(size):
            lines, newline, rest = chunk.rpartition(b"\n")
            if newline:
                yield b"".join(shallow(line) + newline for line in (begun + lines).split(newline))
                begun = rest
            else:
                begun += chunk
        yield begun


class Watching:
    """The session for watches. It asks for metadata alone where the rest is not needed.

    Secrets are watched this way, so that no key material flows, or is kept, that a decision does not need.
    """

    def __init__(self, configuration: Configuration, *, gone: Mapping[str, Callable[[], None]]) -> None:
        """``gone``: the collections whose kinds may be uninstalled, and who hears of it."""
        self._configuration = configuration
        self._gone = gone
        self._opened: dict[str, float] = {}
        self._news = asyncio.Event()

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._configuration.host)

    def session(self) -> aiohttp.ClientSession:
        """A new session: its user closes it."""
        context = ApiClient(self._configuration).rest_client.ssl_context
        return aiohttp.ClientSession(
            response_class=_Answer,
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            middlewares=(self._pass,),
            read_bufsize=2**21,
            trust_env=True,
        )

    async def until_listed(self, paths: set[str]) -> None:
        """Wait until each of these collections was listed: its first watch follows its first list."""
        while not paths <= self._opened.keys():
            self._news.clear()
            await self._news.wait()

    def fault(self) -> str | None:
        """Which watch has not been opened for too long; None where all are alive."""
        now = time.monotonic()
        late = sorted(path for path, opened in self._opened.items() if now - opened > OVERDUE)
        return f"no watch on {late[0]} for {now - self._opened[late[0]]:.0f} s" if late else None

    async def _pass(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        request.headers.update(await authorization(self._configuration))
        path = request.url.path
        watches = request.url.query.get("watch") == "true"
        if request.method == "GET" and path.endswith(("/secrets", "/api/v1/namespaces")):
            request.headers["Accept"] = _WATCH if watches else _LIST
        if watches:
            self._opened[path] = time.monotonic()
            self._news.set()
        response = await handler(request)
        if response.status == http.HTTPStatus.NOT_FOUND and path in self._gone:
            response.close()
            self._opened.pop(path, None)
            self._gone[path]()
            await asyncio.Event().wait()  # kopf would take the answer for its end: who hears of it ends this watch
        if watches and response.status == http.HTTPStatus.OK:
            response.content = cast("aiohttp.StreamReader", _Lines(response.content))
        return response
