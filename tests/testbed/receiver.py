"""Where do the hooks of the tests arrive: an HTTPS server on loopback that keeps every request and answers as told."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.testbed import tls
from tests.testbed.processes import free_port


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    client: str | None  # the fingerprint of the client's certificate

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)

    @property
    def idempotency_key(self) -> str:
        """What tells a repetition from news."""
        return self.headers["Idempotency-Key"]


@dataclass(slots=True, kw_only=True)
class _Answers:
    """What comes back: the next of ``once``, else 204; nothing at all while the gate is closed."""

    once: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)


class Receiver:
    """A server with a certificate for ``localhost`` and 127.0.0.1; with ``clients`` it asks for theirs (roots, PEM)."""

    def __init__(self, pair: tls.Pair, folder: Path, *, clients: Path | None = None) -> None:
        """Nothing listens before ``start``."""
        self.port = free_port()
        self._requests: list[Received] = []
        self._answers = _Answers()
        self._answers.gate.set()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*pair.write(folder, f"receiver-{self.port}"))
        if clients is not None:
            self._context.load_verify_locations(clients)
            self._context.verify_mode = ssl.CERT_REQUIRED

    def __enter__(self) -> Self:
        """Start."""
        self._server = _Server(("127.0.0.1", self.port), _handler(self._requests, self._answers))
        # The handshake is made by the request's own thread: a client that is slow with it holds nobody else up.
        self._server.socket = self._context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="receiver", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.open()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def url(self, path: str = "/", host: str = "localhost") -> str:
        """An address of this server."""
        return f"https://{host}:{self.port}{path}"

    def requests(self, path: str = "") -> list[Received]:
        """What came so far, to one path where one is given."""
        return [request for request in list(self._requests) if path in ("", request.path)]

    def answer(self, status: int, *, times: int = 1, **headers: str) -> None:
        """Answer the next requests like this; ``phrase`` goes into the status line."""
        self._answers.once += [(status, headers)] * times

    def close(self) -> None:
        """Take requests and answer none before ``open``."""
        self._answers.gate.clear()

    def open(self) -> None:
        """Answer, those that wait too."""
        self._answers.gate.set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what some tests are about."""


def _handler(requests: list[Received], answers: _Answers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _receive(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            requests.append(
                Received(
                    method=self.command,
                    path=self.path,
                    headers=dict(self.headers.items()),
                    body=body,
                    client=_fingerprint(self.connection.getpeercert(binary_form=True)),
                )
            )
            status, headers = answers.once.pop(0) if answers.once else (204, {})
            answers.gate.wait()
            self.send_response_only(status, headers.get("phrase"))
            for name, value in headers.items():
                if name != "phrase":
                    self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _receive  # noqa: N815 - the base class looks for these

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
            """Nothing: the test looks at what was kept."""

    return Handler


def _fingerprint(certificate: bytes | None) -> str | None:
    return x509.load_der_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex() if certificate else None
