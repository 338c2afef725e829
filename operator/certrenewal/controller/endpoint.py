"""How do pods ask for a one-time token? POST /v1/token over HTTPS, JSON in and out.

Whoever can reach the port can knock: bodies, connections, their number and their age are limited, and every answer is
a short JSON object.
"""

from __future__ import annotations

import asyncio
import json
import logging
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler

from certrenewal import metrics
from certrenewal.controller.handout import Denied, Handout, seconds
from certrenewal.controller.identity import Serving
from certrenewal.domain.asking import Refusal
from certrenewal.domain.reasons import Reason

log = logging.getLogger(__name__)

PATH = "/v1/token"
LARGEST_BODY = 16 * 1024
HANDSHAKE = 5.0  # seconds
OLDEST_CONNECTION = 30.0
MOST_CONNECTIONS = 256  # each costs some 200 KB

_REASONS = {
    HTTPStatus.NOT_FOUND: (Refusal.NOT_FOUND, f"there is only {PATH}"),
    HTTPStatus.METHOD_NOT_ALLOWED: (Refusal.METHOD_NOT_ALLOWED, f"{PATH} takes POST alone"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        Refusal.REQUEST_ENTITY_TOO_LARGE,
        f"a request has {LARGEST_BODY} bytes at most",
    ),
}


class Endpoint:
    """The HTTPS server of one replica. It listens once it has a certificate."""

    def __init__(self, *, host: str, port: int, handout: Handout, serving: Serving) -> None:
        self.serving = serving
        self._host = host
        self._port = port
        self._handout = handout

    async def run(self) -> None:
        """Serve for ever."""
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self.serving.run(), name="token endpoint's certificate")
            parts.create_task(self._serve(), name="token endpoint's listener")

    async def _serve(self) -> None:
        app = web.Application(client_max_size=LARGEST_BODY, middlewares=[_answered])
        app.router.add_post(PATH, self._token)
        runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=HANDSHAKE)
        await runner.setup()
        try:
            await self.serving.ready.wait()
            await self._listen(runner)
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: _accept(runner, loop),
                self._host,
                self._port,
                ssl=self.serving.context,
                ssl_handshake_timeout=HANDSHAKE,
                ssl_shutdown_timeout=HANDSHAKE,
            )
        except OSError as failure:
            log.error("token endpoint cannot listen", extra={"port": self._port, "error": failure.strerror})
            raise
        log.info("token endpoint listens", extra={"port": self._port})
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    async def _token(self, request: web.Request) -> web.Response:
        caller = await self._handout.identify(request.headers.get("Authorization", ""), request.remote or "")
        return _json(HTTPStatus.OK, self._handout.mint(caller, await request.read()))


def _accept(runner: web.AppRunner, loop: asyncio.AbstractEventLoop) -> asyncio.Protocol:
    """The protocol of one connection, which ends in time whatever its client does or leaves undone."""
    manager = runner.server
    if manager is None or len(manager.connections) >= MOST_CONNECTIONS:
        return _TooMany()
    # No access log, as aiohttp's own runner says it; and what is compressed is no JSON.
    handler = _Handler(manager, loop=loop, access_log=None, auto_decompress=False)  # type: ignore[arg-type]
    loop.call_later(OLDEST_CONNECTION, handler.force_close)
    return handler


class _TooMany(asyncio.Protocol):
    """A connection more than are served."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


class _Handler(RequestHandler):
    """aiohttp's, but for what is no HTTP: its own words would repeat that into the log, with whatever it holds."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        log.debug("request not understood", extra={"peer": request.remote, "error": type(exc).__name__})
        response = _refusal(HTTPStatus.BAD_REQUEST, Refusal.BAD_REQUEST, "this is no HTTP request that can be read")
        response.force_close()
        return response


@web.middleware
async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal in the same form, and no failure of ours in the caller's hands."""
    try:
        response: web.StreamResponse = await handler(request)
    except Denied as denied:
        answer = _refusal(denied.status, denied.reason, denied.message)
        if denied.retry_after is not None:
            answer.headers["Retry-After"] = str(seconds(denied.retry_after))
        if denied.status == HTTPStatus.UNAUTHORIZED:
            answer.headers["WWW-Authenticate"] = "Bearer"
        log.log(
            logging.DEBUG if denied.status == HTTPStatus.TOO_MANY_REQUESTS else logging.INFO,
            "token refused",
            extra={"peer": request.remote, "status": denied.status.value, "reason": denied.reason.value},
        )
        return answer
    except web.HTTPException as other:
        status = HTTPStatus(other.status)
        reason, message = _REASONS.get(status, (Refusal.BAD_REQUEST, status.phrase))
        answer = _refusal(status, reason, message)
        if "Allow" in other.headers:
            answer.headers["Allow"] = other.headers["Allow"]
        return answer
    except (web.RequestPayloadError, ConnectionError):
        return _refusal(HTTPStatus.BAD_REQUEST, Refusal.BAD_REQUEST, "the body did not come whole")
    except Exception:
        log.exception("token request failed")
        return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, Refusal.INTERNAL_ERROR, "see the operator's log")
    return response


def _refusal(status: HTTPStatus, reason: Reason | Refusal, message: str) -> web.Response:
    metrics.TOKENS.labels(outcome="refused").inc()
    return _json(status, {"reason": reason.value, "message": message})


def _json(status: HTTPStatus, body: dict[str, str]) -> web.Response:
    return web.Response(
        status=status,
        text=json.dumps(body) + "\n",
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
