"""How do we speak TLS: whom a client trusts, and which certificate it shows."""

from __future__ import annotations

import os
import ssl


def client_context(roots: bytes | None) -> ssl.SSLContext:
    """A TLS client that trusts just these roots (PEM), or the system's where none are given."""
    context = ssl.create_default_context(cadata=roots.decode() if roots is not None else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def show(context: ssl.SSLContext, pair: bytes) -> None:
    """Have a context show a certificate; ``pair`` is key and chain in PEM.

    Python loads keys from files only: this one lives in memory, and no longer than it takes.
    """
    file = os.memfd_create("client", os.MFD_CLOEXEC)
    try:
        os.write(file, pair)
        context.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
