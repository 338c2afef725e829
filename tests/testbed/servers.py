"""What do tests put behind a Service: TLS servers on this machine, which show the pair that they were given last.

The API server takes no loopback address into an EndpointSlice, so they listen on the machine's own address. They hang
up on whoever is not on this machine.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.testbed.api import Manifest
from tests.testbed.tls import Pair

_PATIENCE = 5
_NOBODY = "192.0.2.1"  # RFC 5737: nothing is ever sent there


def own_address() -> str:
    """The address by which this machine would speak to others; OSError where it has none but loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((_NOBODY, 9))
        return str(probe.getsockname()[0])


class TlsServer:
    """One server; ``handshakes`` counts those that came, complete or not."""

    def __init__(self, folder: Path, pair: Pair) -> None:
        """Listen at once, on a free port."""
        self.address = own_address()
        self.handshakes = 0
        self._folder = folder
        self._context = self._context_of(pair)
        self._listener = socket.create_server((self.address, 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, name=f"tls {self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Already started."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def __str__(self) -> str:
        """As the operator names it."""
        return f"{self.address}:{self.port}"

    def load(self, pair: Pair) -> None:
        """Show this pair to whoever comes next."""
        self._context = self._context_of(pair)

    def stop(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(_PATIENCE)

    def _serve(self) -> None:
        while True:
            try:
                connection, (peer, *_) = self._listener.accept()
            except OSError:
                return
            with connection:
                if peer == self.address:
                    self._shake(connection)

    def _shake(self, connection: socket.socket) -> None:
        self.handshakes += 1
        connection.settimeout(_PATIENCE)
        with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as session:
            session.recv(1)

    def _context_of(self, pair: Pair) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair.write(self._folder, f"server-{secrets.token_hex(4)}"))
        return context


def service(name: str, namespace: str, ports: Mapping[str, int], **spec: object) -> Manifest:
    """A Service without a selector: its EndpointSlices are written by the test."""
    listed = [{"name": port, "port": number} for port, number in ports.items()]
    about = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": {"ports": listed, **spec}}


def endpoint_slice(
    name: str, namespace: str, service: str, address: str, ports: Mapping[str, int], *, ready: bool = True
) -> Manifest:
    """An EndpointSlice with one endpoint, as a pod with ports of its own has it."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "testbed"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
        "ports": [{"name": port, "port": number, "protocol": "TCP"} for port, number in ports.items()],
    }
