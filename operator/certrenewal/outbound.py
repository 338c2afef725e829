"""How does a request of a hook leave: to a host that the administrator lists, at an address that was looked at.

An operator that calls URLs for the users of namespaces could be made to call what only it can reach. So names are
resolved here and the connection goes to just the addresses that were checked; redirects, proxies and cookies are
not followed, used or kept, and nothing of an answer but its status is read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from certrenewal import __version__, tls
from certrenewal.domain.durations import format_duration
from certrenewal.domain.hosts import Allowed, address_of, is_listed, objection
from certrenewal.domain.request import Request

# Lookups cannot be cancelled: those that hang must not take the threads of the rest of the operator.
THREADS = 8
USER_AGENT: Final = f"certrenewal/{__version__}"


class Denied(Exception):
    """The administrator's list does not allow it; the message names the value to set. Nothing was sent."""


class Undelivered(Exception):
    """No answer. The message never repeats what was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whom to believe, and what to show: PEM. None: the system's trust store, no certificate."""

    roots: bytes | None = None
    pair: bytes | None = field(default=None, repr=False)


class Outbound:
    """Sends the requests of hooks."""

    def __init__(self, allowed: Allowed, *, api_server: Iterable[str]) -> None:
        self._allowed = allowed
        self._api_server = frozenset(api_server)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="outbound")

    def close(self) -> None:
        """Wait for nothing that is under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def check(self, host: str, port: int) -> None:
        """Denied unless the list allows the host."""
        if not is_listed(self._allowed, host, port):
            raise Denied(f"hooks.allowedHosts of the chart does not list {self._wanted(host, port)}: add it")

    def _wanted(self, host: str, port: int) -> str:
        """The entry to add: with its port only where the host is listed with others."""
        listed = [entry for entry in self._allowed if entry.port is not None and is_listed((entry,), host, entry.port)]
        return f"{f'[{host}]' if ':' in host else host}:{port}" if listed else host

    async def send(self, request: Request, trust: Trust, timeout: timedelta) -> int:
        """The status of the answer; Denied or Undelivered where there is none."""
        self.check(request.host, request.port)
        host = request.host
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                addresses = await self._addresses(host, request.port)
                context = await asyncio.get_running_loop().run_in_executor(self._threads, _context, trust)
                return await _ask(request, addresses, context)
        except TimeoutError:
            raise Undelivered(f"{host} did not answer within {format_duration(timeout)}") from None
        except aiohttp.ClientConnectorCertificateError as failure:
            cause = failure.certificate_error
            words = getattr(cause, "verify_message", "") or type(cause).__name__
            raise Undelivered(f"the certificate that {host} shows cannot be verified: {words}") from None
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            # Not the exception's own text: it may repeat what was sent.
            raise Undelivered(f"{host} gave no answer ({_kind(failure)})") from None

    async def _addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host that may be called; Denied where there is no such."""
        found = await self._resolve(host, port)
        near = {
            address
            for name in self._api_server
            for address in map(address_of, await self._resolve(name, port))
            if address is not None
        }
        objections: dict[str, str] = {}
        for text in found:
            address = address_of(text)
            if address is not None and (words := objection(self._allowed, address, port, near)):
                objections[text] = f"{host} resolves to {address}, {words}"
        if good := [text for text in found if text not in objections]:
            return good
        text, words = next(iter(objections.items()))
        raise Denied(f"{words}: add {address_of(text)} to hooks.allowedHosts of the chart if that is meant")

    async def _resolve(self, host: str, port: int) -> list[str]:
        if address_of(host) is not None:
            return [host]
        lookup = asyncio.get_running_loop().run_in_executor(self._threads, _lookup, host, port)
        try:
            return await lookup
        except OSError:
            raise Undelivered(f"the name {host} cannot be resolved") from None


def _lookup(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _context(trust: Trust) -> ssl.SSLContext:
    """A TLS context of its own for each request: a client certificate must not outlive it."""
    context = tls.client_context(trust.roots)
    if trust.pair is not None:
        tls.show(context, trust.pair)
    return context


async def _ask(request: Request, addresses: list[str], context: ssl.SSLContext) -> int:
    url = URL(request.url, encoded=True)
    if ((url.host or "").lower(), url.port) != (request.host, request.port):
        raise ValueError("two readings of one URL")  # never: what was checked would not be what is called
    connector = aiohttp.TCPConnector(
        resolver=_Checked(addresses), use_dns_cache=False, ssl=context, force_close=True, limit=1
    )
    async with (
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"User-Agent": USER_AGENT},
            auto_decompress=False,
        ) as session,
        session.request(
            request.method.value, url, headers=request.headers, data=request.body, allow_redirects=False
        ) as response,
    ):
        return response.status


class _Checked(AbstractResolver):
    """Answers with the addresses that were checked: a name may resolve to others a moment later."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


def _kind(failure: BaseException) -> str:
    """What happened, in the operating system's words where there are any."""
    inner = getattr(failure, "os_error", failure)
    return getattr(inner, "strerror", None) or type(failure).__name__
