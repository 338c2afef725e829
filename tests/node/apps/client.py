"""A client that connects ten times a second and prints one JSON line for each connection: what it met, or how it failed.

It needs nothing but Python: ``client.py URL [--mutual]``. It trusts the mounted roots and nobody else, checks name and
dates, and makes a new connection each time; with ``--mutual`` it shows the certificate of its own mounted Secret.
"""

import argparse
import http.client
import json
import signal
import ssl
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

PATIENCE = 5


def attempt(url: str, roots: Path, own: Path | None) -> dict[str, object]:
    """One connection with one request; ``own`` is the folder of the client's certificate."""
    begun = time.time()
    record: dict[str, object] = {"at": datetime.fromtimestamp(begun, UTC).isoformat()}
    try:
        record |= _ask(url, _context(roots, own))
    except (OSError, http.client.HTTPException, ValueError) as failure:
        record |= {"error": f"{type(failure).__name__}: {failure}"}
    return record | {"seconds": round(time.time() - begun, 4)}


def _context(roots: Path, own: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(roots))
    if own:
        context.load_cert_chain(own / "tls.crt", own / "tls.key")
    return context


def _ask(url: str, context: ssl.SSLContext) -> dict[str, object]:
    address = urlsplit(url)
    connection = http.client.HTTPSConnection(
        address.hostname or "", address.port or 443, timeout=PATIENCE, context=context
    )
    try:
        connection.connect()
        met = connection.sock.getpeercert() or {}  # the handshake has checked chain, name and dates
        connection.request("GET", address.path or "/")
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return {"serial": met["serialNumber"], "ends": met["notAfter"], **answer}


def tell(record: dict[str, object]) -> None:
    """One line, in one piece whatever other threads print."""
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Connect until told to end."""
    options = argparse.ArgumentParser()
    options.add_argument("url")
    options.add_argument("--roots", type=Path, default=Path("/roots/ca.crt"))
    options.add_argument("--mutual", dest="own", action="store_const", const=Path("/tls"))
    options.add_argument("--each", type=float, default=0.1)
    asked = options.parse_args()

    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with ThreadPoolExecutor(16) as connections:  # a slow connection delays none of the next
        while not ended.wait(asked.each):
            connections.submit(lambda: tell(attempt(asked.url, asked.roots, asked.own)))


if __name__ == "__main__":
    main()
