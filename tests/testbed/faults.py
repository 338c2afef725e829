"""What can go wrong on the way to a server: proxies on loopback that delay, refuse, swallow, cut or answer wrongly.

``TcpProxy`` passes TLS through, so that client certificates reach the server; ``HttpProxy`` ends TLS, so that
single requests can be chosen. Both run in a thread of their own; every method may be called from the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import threading
import urllib.parse
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp import web

from tests.testbed import tls
from tests.testbed.controlplane import ControlPlane
from tests.testbed.processes import free_port
from tests.testbed.stepca import StepCA

T = TypeVar("T")

_CHUNK = 65536
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "host", "content-length"}
_RESET_AT_ONCE = struct.pack("ii", 1, 0)


class _Background:
    """An event loop in a thread, with the life cycle that both proxies share."""

    def __init__(self) -> None:
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def url(self) -> str:
        """The address that clients use instead of the target's."""
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._run(self._open())

    def stop(self) -> None:
        """Close everything."""
        self._run(self._close())
        self._run(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _open(self) -> None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


class TcpProxy(_Background):
    """Bytes to ``target`` (a URL) and back, TLS untouched; a mode holds for open connections and new ones."""

    def __init__(self, target: str) -> None:
        """Pass everything until told otherwise."""
        super().__init__()
        address = urllib.parse.urlsplit(target)
        self._target = (address.hostname or "127.0.0.1", address.port or 443)
        self._server: asyncio.Server | None = None
        self._open_transports: set[asyncio.WriteTransport] = set()
        self._delay = 0.0
        self._budget: int | None = None
        self._passed: Counter[asyncio.StreamWriter] = Counter()
        self.accepted = 0

    def pass_all(self) -> None:
        """Undo every fault; what a blackhole held back is delivered now."""
        self._run(self._set())

    def refuse(self) -> None:
        """Refuse connections, and cut those that are open."""
        self._run(self._refuse())

    def blackhole(self) -> None:
        """Accept connections and deliver nothing, in either direction."""
        self._run(self._set(flowing=False))

    def delay(self, seconds: float) -> None:
        """Hold each piece of data back for so long."""
        self._run(self._set(delay=seconds))

    def cut_after(self, size: int) -> None:
        """Cut each connection once ``size`` more bytes of answers have passed over it."""
        self._run(self._set(budget=size))

    def cut(self) -> None:
        """Reset the open connections; new ones are unaffected."""
        self._run(self._cut())

    async def _set(self, *, flowing: bool = True, delay: float = 0.0, budget: int | None = None) -> None:
        self._delay, self._budget = delay, budget
        self._passed.clear()
        self._flow.set() if flowing else self._flow.clear()
        await self._listen()

    async def _open(self) -> None:
        self._flow = asyncio.Event()
        self._flow.set()
        await self._listen()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _close(self) -> None:
        await self._refuse()

    async def _cut(self) -> None:
        for transport in list(self._open_transports):
            _reset(transport)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open_transports.add(writer.transport)
        try:
            await self._flow.wait()
            with contextlib.suppress(OSError):
                await self._connect(reader, writer)
        finally:
            self._open_transports.discard(writer.transport)
            del self._passed[writer]
            _reset(writer.transport)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        try:
            asking = asyncio.create_task(self._ask(reader, upstream_writer))
            await self._pump(upstream_reader, writer, answers=True)
            asking.cancel()
            with contextlib.suppress(OSError):
                await asyncio.wait_for(writer.drain(), 1)
                writer.close()
                await asyncio.wait_for(writer.wait_closed(), 1)
        finally:
            upstream_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False) -> None:
        while piece := await reader.read(_CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._flow.wait()
            if answers and self._budget is not None:
                piece = piece[: self._budget - self._passed[writer]]
                self._passed[writer] += len(piece)
            writer.write(piece)
            await writer.drain()
            if answers and self._passed[writer] == self._budget:
                raise ConnectionResetError("the byte budget is used up")

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await self._pump(reader, writer)
            writer.write_eof()


@dataclass(eq=False, kw_only=True)
class Rule:
    """What happens to requests of one method and path, ``times`` times (None: until removed)."""

    method: str
    path: re.Pattern[str]
    times: int | None
    delay: float = 0.0
    answer: tuple[int, str, dict[str, str]] | None = None
    cut: str = ""
    hits: int = 0

    def takes(self, method: str, path: str) -> bool:
        """Whether it applies to this request; counted if so."""
        if self.times is not None and self.hits >= self.times:
            return False
        if self.method not in ("*", method) or not self.path.search(path):
            return False
        self.hits += 1
        return True


@dataclass(slots=True, kw_only=True)
class Seen:
    """A request that came through the proxy, the status of its answer (0: cut or under way) and its bytes so far."""

    method: str
    path: str
    status: int = 0
    size: int = 0


class HttpProxy(_Background):
    """Requests to ``target`` one by one, streams included; the first rule that takes a request decides its fate."""

    def __init__(self, target: str, *, pair: tls.Pair, ca_file: Path, upstream_ca: Path, folder: Path) -> None:
        """``pair`` is shown to clients, who check it with ``ca_file``; the target is checked with ``upstream_ca``."""
        super().__init__()
        self.ca_file = ca_file
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*pair.write(folder, f"proxy-{self.port}"))
        self._upstream_context = ssl.create_default_context(cafile=str(upstream_ca))
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._streams: dict[asyncio.BaseTransport, str] = {}
        self._held: re.Pattern[str] | None = None
        self._flowing = asyncio.Event()
        self.requests: list[Seen] = []

    def delay(self, method: str, path: str, seconds: float, *, times: int | None = None) -> Rule:
        """Hold the request back, then pass it."""
        return self._add(method, path, times, delay=seconds)

    def answer(
        self,
        method: str,
        path: str,
        status: int,
        body: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        times: int | None = 1,
    ) -> Rule:
        """Answer in the server's place, which hears nothing."""
        return self._add(method, path, times, answer=(status, body, dict(headers or {})))

    def cut_before(self, method: str, path: str, *, times: int | None = 1) -> Rule:
        """Reset the connection; the server hears nothing."""
        return self._add(method, path, times, cut="before")

    def cut_after(self, method: str, path: str, *, times: int | None = 1) -> Rule:
        """Let the server do its work, then lose its answer."""
        return self._add(method, path, times, cut="after")

    def cut_streams(self, path: str = "") -> int:
        """Reset the connections of the requests under way (watches, above all); how many there were."""
        return self._run(self._cut_streams(re.compile(path)))

    def hold_streams(self, path: str) -> None:
        """Deliver nothing more of the answers under way (watches, above all) until `release_streams`."""
        self._run(self._hold(re.compile(path)))

    def release_streams(self) -> None:
        """Deliver what was held back."""
        self._run(self._hold(None))

    def remove(self, *rules: Rule) -> None:
        """Take these rules away, without any: all."""
        with self._lock:
            self._rules = [rule for rule in self._rules if rules and rule not in rules]

    def _add(self, method: str, path: str, times: int | None, **effect: Any) -> Rule:
        rule = Rule(method=method, path=re.compile(path), times=times, **effect)
        with self._lock:
            self._rules.append(rule)
        return rule

    def _rule_for(self, method: str, path: str) -> Rule | None:
        with self._lock:
            return next((rule for rule in self._rules if rule.takes(method, path)), None)

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            skip_auto_headers=["Accept", "Accept-Encoding", "Content-Type", "User-Agent"],
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            connector=aiohttp.TCPConnector(ssl=self._upstream_context, limit=0),
        )
        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._context).start()

    async def _close(self) -> None:
        await self._cut_streams(re.compile(""))
        server = self._runner.server
        idle = [handler.transport for handler in server.connections if handler.transport] if server else []
        await self._runner.cleanup()
        for transport in idle:
            # TLS would wait for the client's goodbye, longer than this loop runs. (Early Pythons 3.11 trip over
            # one that has ended.)
            with contextlib.suppress(AttributeError):
                transport.abort()
        await self._session.close()

    async def _cut_streams(self, path: re.Pattern[str]) -> int:
        chosen = [transport for transport, asked in self._streams.items() if path.search(asked)]
        for transport in chosen:
            _reset(transport)
        return len(chosen)

    async def _hold(self, path: re.Pattern[str] | None) -> None:
        self._held = path
        if path is None:
            self._flowing.set()
        else:
            self._flowing.clear()

    async def _until_flowing(self, path: str) -> None:
        if self._held is not None and self._held.search(path):
            await self._flowing.wait()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        seen = Seen(method=request.method, path=request.path_qs)
        self.requests.append(seen)
        self._streams[transport] = seen.path
        try:
            return await self._decide(request, transport, seen)
        finally:
            self._streams.pop(transport, None)

    async def _decide(self, request: web.Request, transport: asyncio.BaseTransport, seen: Seen) -> web.StreamResponse:
        rule = self._rule_for(seen.method, seen.path)
        if rule and rule.delay:
            await asyncio.sleep(rule.delay)
        if rule and rule.answer:
            status, body, headers = rule.answer
            seen.status = status
            return web.Response(status=status, body=body.encode(), headers=headers)
        if rule and rule.cut == "before":
            return _lost(transport)
        return await self._forward(request, transport, seen, lose=bool(rule and rule.cut == "after"))

    async def _forward(
        self, request: web.Request, transport: asyncio.BaseTransport, seen: Seen, *, lose: bool
    ) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        try:
            upstream = await self._session.request(
                request.method,
                self._target + seen.path,
                data=await request.read() or None,
                headers=headers,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError):
            return _lost(transport)
        async with upstream:
            if lose:
                await upstream.read()
                return _lost(transport)
            seen.status = upstream.status
            return await self._relay(upstream, request, transport, seen)

    async def _relay(
        self, upstream: aiohttp.ClientResponse, request: web.Request, transport: asyncio.BaseTransport, seen: Seen
    ) -> web.StreamResponse:
        headers = {name: value for name, value in upstream.headers.items() if name.lower() not in _HOP_BY_HOP}
        response = web.StreamResponse(status=upstream.status, headers=headers)
        if upstream.content_length is not None:
            response.content_length = upstream.content_length
        try:
            await response.prepare(request)
            async for piece in upstream.content.iter_any():
                await self._until_flowing(seen.path)
                seen.size += len(piece)
                await response.write(piece)
            await response.write_eof()
        except (aiohttp.ClientError, OSError):
            return _lost(transport)
        return response


def api_proxy(plane: ControlPlane, folder: Path) -> HttpProxy:
    """A proxy before the API server, for ``Operator(through=…)``."""
    pair = tls.self_signed()
    ca_file, _ = pair.write(folder, "api-proxy")
    return HttpProxy(plane.server, pair=pair, ca_file=ca_file, upstream_ca=plane.ca_file, folder=folder)


def ca_proxy(ca: StepCA, folder: Path) -> HttpProxy:
    """A proxy before step-ca with a certificate from that CA; client certificates (mTLS) do not get through it."""
    certificate, key = ca.certificate("localhost", tls.LOOPBACK)
    return HttpProxy(
        ca.url,
        pair=tls.Pair(certificate=certificate, key=key),
        ca_file=ca.root_file,
        upstream_ca=ca.root_file,
        folder=folder,
    )


def _lost(transport: asyncio.BaseTransport) -> web.Response:
    _reset(transport)
    return web.Response()


def _reset(transport: asyncio.BaseTransport) -> None:
    if transport.is_closing():
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_ONCE)
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()
