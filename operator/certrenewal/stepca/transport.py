"""How does a request reach step-ca: one kept-alive session for each set of trusted roots."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from cryptography import x509

from certrenewal.domain.certificate import dump_certificates
from certrenewal.domain.reasons import Reason
from certrenewal.stepca.errors import BadAnswer, NotReady, Refused, Unreachable
from certrenewal.tls import client_context

# step-ca closes an idle connection after 15 s; one that we close first never fails under a request.
KEEP_ALIVE = 10.0
TIMEOUT = aiohttp.ClientTimeout(total=15, sock_connect=5)
LARGEST_ANSWER = 1 << 20

_HOST_MISMATCH = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


class Transport:
    """JSON over HTTPS to one step-ca. Without roots nothing is verified: only for the root's own fetch."""

    def __init__(self, url: str, roots: Iterable[x509.Certificate] | None) -> None:
        self._url = url
        self.skew: timedelta | None = None  # how far the CA's clock was ahead of ours at its last answer
        self._ssl: ssl.SSLContext | bool = False if roots is None else client_context(dump_certificates(roots))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(keepalive_timeout=KEEP_ALIVE, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),  # a CA has no use for cookies, and a proxy's are not to be kept
            timeout=TIMEOUT,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the session and its connections."""
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> dict[str, Any]:
        """One request; ``context`` carries a client certificate and gets connections of its own."""
        try:
            async with self._session.request(
                method, self._url + path, json=body, headers=headers, ssl=context or self._ssl, allow_redirects=False
            ) as response:
                self.skew = _skew(response)
                return _answer(response, await _body(response))
        except aiohttp.ClientConnectorCertificateError as failure:
            raise _distrusted(self._url, failure) from None
        except TimeoutError:
            raise Unreachable(f"{self._url} did not answer in time") from None
        except (aiohttp.ClientError, OSError) as failure:
            # Not the exception's own text: it may repeat what was sent.
            raise Unreachable(f"{self._url} cannot be reached ({_kind(failure)})") from None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, as long as it has a size that a CA's answer can have."""
    body = b""
    while chunk := await response.content.readany():
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise BadAnswer(f"{response.url.path} answered with more than {LARGEST_ANSWER} bytes")
    return body


def _answer(response: aiohttp.ClientResponse, text: bytes) -> dict[str, Any]:
    content = _json(text)
    if response.status in (200, 201) and content is not None:
        return content
    if response.status < 500 and response.status != 429 and content is None:
        # step-ca says no in JSON: this is a sign-in page or the like of a proxy in between.
        raise BadAnswer(
            f"{response.url.path} answered {response.status} with something that is no JSON object",
            status=response.status,
        )
    message = str((content or {}).get("message") or (content or {}).get("detail") or response.reason or "")[:500]
    if response.status == 429 or response.status >= 500:
        raise Unreachable(
            f"{response.url.path} answered {response.status}: {message}",
            status=response.status,
            retry_after=_retry_after(response),
        )
    raise Refused(response.status, message)


def _json(text: bytes) -> dict[str, Any] | None:
    try:
        content = orjson.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _skew(response: aiohttp.ClientResponse) -> timedelta | None:
    """The CA's Date (RFC 9110 §6.6.1, whole seconds) against our clock."""
    try:
        return _moment(response.headers["Date"]) - datetime.now(UTC)
    except (KeyError, ValueError, TypeError):
        return None


@functools.lru_cache(maxsize=1)  # in a burst, hundreds of answers have the same
def _moment(date: str) -> datetime:
    return parsedate_to_datetime(date)


def _retry_after(response: aiohttp.ClientResponse) -> timedelta | None:
    """Retry-After in seconds or as a date (RFC 9110 §10.2.3), at most an hour of it."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return timedelta(seconds=min(int(value), 3600))
    try:
        return min(parsedate_to_datetime(value) - datetime.now(UTC), timedelta(hours=1))
    except (ValueError, TypeError):
        return None


def _distrusted(url: str, failure: aiohttp.ClientConnectorCertificateError) -> NotReady:
    cause = failure.certificate_error
    if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _HOST_MISMATCH:
        return NotReady(
            Reason.HOST_NOT_IN_CERTIFICATE,
            f"the certificate that {url} shows is not for this host: use a name from dnsNames in its ca.json",
        )
    words = getattr(cause, "verify_message", "") or type(cause).__name__
    return NotReady(
        Reason.CERTIFICATE_NOT_TRUSTED, f"the certificate that {url} shows does not lead to the pinned root: {words}"
    )


def _kind(failure: BaseException) -> str:
    """What happened, in the operating system's words where there are any."""
    inner = getattr(failure, "os_error", failure)
    return getattr(inner, "strerror", None) or type(failure).__name__
