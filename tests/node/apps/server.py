"""A TLS server with the files of a mounted Secret, which takes in new ones by a restart, by itself or by a signal.

It needs nothing but Python: ``server.py --reload never|watch|signal [--mutual]``. Every answer is a JSON object
that names the pod. SIGTERM ends it after the requests under way.
"""

import argparse
import http.server
import json
import os
import signal
import socket
import ssl
import threading
from pathlib import Path

PATIENCE = 5
LOOK = 0.1


class Files:
    """The certificate, its key and, for mutual TLS, the roots of clients; ``context`` is what the next client meets."""

    def __init__(self, folder: Path, *, mutual: bool) -> None:
        """Load them."""
        self._folder = folder
        self._mutual = mutual
        self.loads = 0
        self.context = self._load()

    def load(self) -> None:
        """Take in what is there now."""
        self.context = self._load()
        print(json.dumps({"event": "loaded", "loads": self.loads}), flush=True)

    def watch(self) -> None:
        """Load again whenever the kubelet has exchanged the files."""
        seen = self._version()
        while True:
            threading.Event().wait(LOOK)
            if (now := self._version()) != seen:
                seen = now
                self.load()

    def _version(self) -> str:
        return os.path.realpath(self._folder / "tls.crt")

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._folder / "tls.crt", self._folder / "tls.key")
        if self._mutual:
            context.load_verify_locations(self._folder / "ca.crt")
            context.verify_mode = ssl.CERT_REQUIRED
        self.loads += 1
        return context


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every GET."""

    server: "Server"

    def setup(self) -> None:
        """Shake hands here, in the connection's own thread."""
        self.request.settimeout(PATIENCE)
        self.request = self.server.files.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def do_GET(self) -> None:
        """Name the pod."""
        peer = self.request.getpeercert() or {}
        body = json.dumps({"pod": socket.gethostname(), "client": peer.get("serialNumber", "")}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Listens on every address of the pod."""

    request_queue_size = 128
    daemon_threads = False

    def __init__(self, port: int, files: Files) -> None:
        """Listen at once."""
        self.files = files
        super().__init__(("", port), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, or is refused, is no news."""


def main() -> None:
    """Serve until told to end."""
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, default=8443)
    options.add_argument("--folder", type=Path, default=Path("/tls"))
    options.add_argument("--reload", choices=("never", "watch", "signal"), default="never")
    options.add_argument("--mutual", action="store_true")
    asked = options.parse_args()

    files = Files(asked.folder, mutual=asked.mutual)
    server = Server(asked.port, files)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    if asked.reload == "signal":
        signal.signal(signal.SIGHUP, lambda *_: files.load())
    if asked.reload == "watch":
        threading.Thread(target=files.watch, daemon=True).start()
    server.serve_forever(poll_interval=0.1)
    server.server_close()


if __name__ == "__main__":
    main()
