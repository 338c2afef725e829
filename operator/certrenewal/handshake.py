"""Which certificate does a TLS server show? Whether anybody should trust it is not asked.

The handshake is driven by hand, as up to TLS 1.2 a server that wants a client certificate shows its own and then
breaks off: asyncio would keep nothing of what it sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import ssl

PATIENCE = 5.0
_LARGEST_HANDSHAKE = 1 << 20
_CHUNK = 1 << 16
_HANDSHAKE, _CERTIFICATE = 22, 11  # RFC 5246 §6.2.1 (record) and §7.4 (message)


class NoCertificate(Exception):
    """No TLS server answered; the message says in a few words what happened instead."""


async def served_leaf(address: str, port: int, server_name: str) -> bytes:
    """The leaf in DER that the server at this address shows to clients of ``server_name``."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                return await _shake(reader, writer, server_name)
            finally:
                writer.close()
    except TimeoutError:
        raise NoCertificate(f"no answer within {PATIENCE:g} s") from None
    except OSError as failure:
        # Not its own text: asyncio puts the address into it once more.
        raise NoCertificate(os.strerror(failure.errno) if failure.errno else type(failure).__name__) from None


async def _shake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server_name: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = _context().wrap_bio(incoming, outgoing, server_hostname=server_name)
    received = bytearray()
    while not (finished := _advance(tls, received)):
        writer.write(outgoing.read())
        await writer.drain()
        chunk = await reader.read(_CHUNK)
        if not chunk:
            return _or_nothing(_plain_leaf(received), "it closed the connection")
        received += chunk
        if len(received) > _LARGEST_HANDSHAKE:
            raise NoCertificate("its handshake does not end")
        incoming.write(chunk)
    with contextlib.suppress(ssl.SSLError):
        tls.unwrap()  # a goodbye, so that the server logs no broken connection
    writer.write(outgoing.read())
    return finished


def _advance(tls: ssl.SSLObject, received: bytearray) -> bytes | None:
    """One step of the handshake: the leaf where it is through, None where more has to come."""
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return None
    except ssl.SSLError as failure:
        words = (failure.reason or type(failure).__name__).replace("_", " ").lower()
        return _or_nothing(_plain_leaf(received), f"TLS fails: {words}")
    return _or_nothing(tls.getpeercert(binary_form=True), "it shows no certificate")


def _or_nothing(leaf: bytes | None, words: str) -> bytes:
    if not leaf:
        raise NoCertificate(words)
    return leaf


@functools.cache
def _context() -> ssl.SSLContext:
    """Old ciphers and small keys included: what any client might still be shown is worth to be compared."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:!aNULL:!eNULL:@SECLEVEL=0")
    return context


def _plain_leaf(received: bytes | bytearray) -> bytes | None:
    """The leaf in the Certificate message of a handshake that broke off; TLS 1.3 sends none that can be read."""
    messages = b"".join(_handshake_records(bytes(received)))
    while len(messages) >= 4:
        kind, size = messages[0], int.from_bytes(messages[1:4])
        body, messages = messages[4 : 4 + size], messages[4 + size :]
        if kind == _CERTIFICATE and len(body) == size > 6:
            return body[6 : 6 + int.from_bytes(body[3:6])] or None
    return None


def _handshake_records(received: bytes) -> list[bytes]:
    """The contents of the unencrypted handshake records at the start."""
    found: list[bytes] = []
    while len(received) >= 5 and received[0] == _HANDSHAKE:
        size = int.from_bytes(received[3:5])
        found.append(received[5 : 5 + size])
        received = received[5 + size :]
    return found
