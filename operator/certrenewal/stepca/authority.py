"""The authority as the rest of the operator sees it: a certificate signed, renewed or rekeyed, and checked.

Every answer is checked before anybody sees it: the key is ours, the names are those asked for, it is valid now, and
it leads to a trusted root. Limits of the CertAuthority hold over all its calls.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from aiolimiter import AsyncLimiter
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certrenewal import metrics
from certrenewal.domain.authority import AuthoritySpec
from certrenewal.domain.certificate import (
    Chain,
    Malformed,
    PrivateKey,
    dump_certificates,
    dump_key,
    fingerprint,
    key_fits,
    parse_chain,
)
from certrenewal.domain.durations import format_duration
from certrenewal.domain.names import Name
from certrenewal.domain.routes import Route
from certrenewal.stepca import keys, tokens
from certrenewal.stepca.errors import BadAnswer, Refused, Unreachable
from certrenewal.stepca.provisioner import Provisioner, current_entry, find
from certrenewal.stepca.transport import Transport
from certrenewal.stepca.trust import fetch_intermediates, fetch_roots, no_longer_named, pinned_roots, united
from certrenewal.tls import client_context, show

# A certificate from a CA whose clock runs ahead is still used; step-ca backdates by a minute itself.
CLOCK_TOLERANCE = timedelta(minutes=5)
MTLS_CONCURRENCY = 4  # each handshake costs the loop some 4 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A checked certificate with its key, which stays out of the repr."""

    chain: Chain
    root: x509.Certificate  # that the chain leads to
    key: PrivateKey = field(repr=False)
    route: Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A one-time token for somebody else, with what its holder has to know. The token stays out of the repr."""

    token: str = field(repr=False)
    url: str
    fingerprint: str  # of the root
    expires: datetime


class Authority:
    """One step-ca, trusted and ready to sign. Made by `connect`."""

    def __init__(
        self,
        spec: AuthoritySpec,
        *,
        pinned: tuple[x509.Certificate, ...],
        named: tuple[x509.Certificate, ...],
        intermediates: tuple[x509.Certificate, ...],
        transport: Transport,
        provisioner: Provisioner | None,
    ) -> None:
        self.spec = spec
        self.pinned = pinned
        self.named = named
        self.roots = united(named, pinned)
        self.intermediates = intermediates
        self.provisioner = provisioner
        self.down: str | None = None  # why nobody may call: the last call found nobody, and no probe did since
        self._transport = transport
        self._closed = False
        self._slots = asyncio.Semaphore(spec.concurrency)
        self._handshakes = asyncio.Semaphore(MTLS_CONCURRENCY)
        self._rate = AsyncLimiter(spec.requests_per_second, 1)

    async def close(self) -> None:
        """End its connections, once the calls under way have ended; who calls later is told so."""
        for _ in range(self.spec.concurrency):
            await self._slots.acquire()
        self._closed = True
        await self._transport.close()
        for _ in range(self.spec.concurrency):
            self._slots.release()

    @property
    def skew(self) -> timedelta | None:
        """How far the CA's clock was ahead of ours at its last answer, to the second."""
        return self._transport.skew

    async def probe(self) -> None:
        """Ask whether the CA answers; Unreachable where it does not."""
        await self._transport.call("GET", "/health")
        self.down = None

    async def is_current(self) -> bool:
        """Whether the CA still names the same roots, intermediates and provisioner."""
        if await fetch_roots(self._transport) != self.named:
            return False
        if await fetch_intermediates(self._transport) != self.intermediates:
            return False
        if self.provisioner is None or self.spec.provisioner is None:
            return True
        return await current_entry(self._transport, self.spec.provisioner) == self.provisioner.entry

    async def sign(
        self, key: PrivateKey, *, names: Sequence[Name], duration: timedelta | None, now: datetime
    ) -> Issued:
        """A new certificate for ``key`` by a fresh one-time token, as long as ``duration`` (None: CA's default)."""
        if self.provisioner is None:
            raise Refused(403, "this CertAuthority has no spec.provisioner: it can only renew")
        csr = keys.request(key)
        token = tokens.sign_token(
            self.provisioner,
            names=names,
            audience=self._audience("/1.0/sign"),
            root_fingerprint=self.root_fingerprint,
            csr=csr,
            now=now,
        )
        body = {"csr": csr.public_bytes(Encoding.PEM).decode(), "ott": token}
        if duration is not None:
            body["notAfter"] = format_duration(duration)
        answer = await self._call(Route.SIGN, "/1.0/sign", body=body)
        return self._checked(answer, key, names, Route.SIGN, now)

    @property
    def root_fingerprint(self) -> str:
        """By which a client that knows nothing else recognises this CA: that of a root pinned and still named."""
        alive = [root for root in self.pinned if root in self.named] or [*self.pinned]
        return self.spec.fingerprint or fingerprint(alive[0])

    def mint(self, *, names: Sequence[Name], lifetime: timedelta, now: datetime) -> Minted:
        """A one-time token for somebody who keeps the key; the CA is not asked."""
        if self.provisioner is None:
            raise Refused(403, "this CertAuthority has no spec.provisioner: it can only renew")
        token = tokens.sign_token(
            self.provisioner,
            names=names,
            audience=self._audience("/1.0/sign"),
            root_fingerprint=self.root_fingerprint,
            csr=None,
            now=now,
            lifetime=lifetime,
        )
        expires = now.replace(microsecond=0) + timedelta(seconds=int(lifetime.total_seconds()))
        return Minted(token=token, url=self.spec.url, fingerprint=self.root_fingerprint, expires=expires)

    async def burn(self, token: str) -> bool:
        """Make a one-time token worthless; False where it was so already, used or older than the CA's start.

        step-ca notes a token as used before it compares it with the request: one that contradicts it is refused,
        and nothing is issued.
        """
        body = {"csr": keys.contradiction().public_bytes(Encoding.PEM).decode(), "ott": token}
        try:
            await self._call("Burn", "/1.0/sign", body=body)
        except Refused as refusal:
            if refusal.status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise
            return refusal.status == HTTPStatus.FORBIDDEN
        return True

    async def renew_by_token(self, chain: Chain, key: PrivateKey, *, now: datetime) -> Issued:
        """The same certificate with new dates; the leaf's key signs a token for it."""
        token = tokens.renew_token(chain, key, audience=self._audience("/1.0/renew"), now=now)
        answer = await self._call(Route.RENEW_TOKEN, "/1.0/renew", headers={"Authorization": f"Bearer {token}"})
        return self._checked(answer, key, chain.leaf.names, Route.RENEW_TOKEN, now)

    async def renew_by_mtls(self, chain: Chain, key: PrivateKey, *, now: datetime) -> Issued:
        """The same certificate with new dates; the leaf is shown in a TLS handshake."""
        answer = await self._call_showing(chain, key, Route.RENEW_MTLS, "/1.0/renew")
        return self._checked(answer, key, chain.leaf.names, Route.RENEW_MTLS, now)

    async def rekey(self, chain: Chain, key: PrivateKey, new_key: PrivateKey, *, now: datetime) -> Issued:
        """The same names under ``new_key``; the leaf is shown in a TLS handshake, as /rekey takes nothing else."""
        body = {"csr": keys.request(new_key).public_bytes(Encoding.PEM).decode()}
        answer = await self._call_showing(chain, key, Route.REKEY, "/1.0/rekey", body=body)
        return self._checked(answer, new_key, chain.leaf.names, Route.REKEY, now)

    async def revoke(self, serial: str, *, reason: str, now: datetime) -> None:
        """Have the CA renew this serial (decimal digits) no more; one that was revoked before is none the worse.

        Refused says why not, with status 501 where the CA keeps no database.
        """
        if self.provisioner is None:
            raise Refused(403, "this CertAuthority has no spec.provisioner: it cannot revoke")
        token = tokens.revoke_token(
            self.provisioner,
            serial=serial,
            audience=self._audience("/1.0/revoke"),
            root_fingerprint=self.root_fingerprint,
            now=now,
        )
        body = {"serial": serial, "ott": token, "reason": reason, "reasonCode": 0, "passive": True}
        try:
            await self._call("Revoke", "/1.0/revoke", body=body)
        except Refused as refusal:
            if refusal.status != HTTPStatus.BAD_REQUEST or "already revoked" not in str(refusal):
                raise
        except Unreachable as failure:
            if failure.status != HTTPStatus.NOT_IMPLEMENTED:
                raise
            raise Refused(failure.status, "it keeps no database, and so no list of what is revoked") from None

    def _audience(self, path: str) -> str:
        """The CA compares scheme, host and path with its own names, and ignores the port."""
        return f"https://{urlsplit(self.spec.url).netloc}{path}"

    async def _call_showing(
        self, chain: Chain, key: PrivateKey, route: Route, path: str, *, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A call with the leaf as client certificate.

        step-ca ends the handshake of a leaf that it does not take, which looks like an outage: it is one where
        nobody answers a plain call either.
        """
        async with self._client_certificate(chain, key) as context:
            try:
                return await self._call(route, path, body=body, context=context)
            except Unreachable as failure:
                if failure.answered:
                    raise
                await self.probe()
                raise Refused(None, "it ends the TLS handshake when this certificate is shown") from None

    async def _call(
        self,
        route: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> dict[str, Any]:
        async with self._slots, self._rate:
            if self._closed:
                # With a status, as this says nothing of the one in its place.
                raise Unreachable("the CertAuthority is being set up again", status=HTTPStatus.SERVICE_UNAVAILABLE)
            if self.down is not None:
                raise Unreachable(self.down)
            started = time.perf_counter()
            try:
                return await self._transport.call("POST", path, body=body, headers=headers, context=context)
            finally:
                metrics.CA_REQUEST_SECONDS.labels(route).observe(time.perf_counter() - started)

    @asynccontextmanager
    async def _client_certificate(self, chain: Chain, key: PrivateKey) -> AsyncIterator[ssl.SSLContext]:
        """A TLS context that shows the chain."""
        async with self._handshakes:
            context = client_context(dump_certificates(self.roots))
            show(context, dump_key(key) + chain.pem)
            yield context

    def _checked(
        self, answer: Mapping[str, Any], key: PrivateKey, names: Iterable[Name], route: Route, now: datetime
    ) -> Issued:
        chain = _chain(answer)
        if not key_fits(key, chain.leaf):
            raise BadAnswer("the CA answered with a certificate for another key")
        if set(chain.leaf.names) != set(names):
            raise BadAnswer(
                f"the CA answered with a certificate for {', '.join(map(str, chain.leaf.names)) or 'no name'}"
            )
        if chain.leaf.not_after <= now:
            raise BadAnswer(f"the CA answered with a certificate that ended at {chain.leaf.not_after.isoformat()}")
        if chain.leaf.not_before > now + CLOCK_TOLERANCE:
            raise BadAnswer(f"the CA answered with a certificate that begins at {chain.leaf.not_before.isoformat()}")
        root = chain.root(self.roots)
        if root is None:
            raise BadAnswer("the CA answered with a certificate that does not lead to a trusted root")
        return Issued(chain=chain, root=root, key=key, route=route)


async def connect(
    spec: AuthoritySpec, password: bytes | None, *, vouched: tuple[x509.Certificate, ...] = ()
) -> Authority:
    """Pin the root, take the CA's bundle, open the provisioner's key.

    ``vouched`` are the roots that the CA named when it was last trusted: the way from a pinned root to the one that
    follows it. They count for nothing once the CA does not name the pinned root any more: whoever takes that root
    away has to change the pin. NotReady, Unreachable, Refused or BadAnswer say why there is no authority.
    """
    pinned = await pinned_roots(spec)
    followed = set(pinned) & set(vouched)
    async with Transport(spec.url, united(pinned, vouched if followed else ())) as first:
        named = await fetch_roots(first)
    if followed and not set(pinned) & set(named):
        raise no_longer_named(spec)
    transport = Transport(spec.url, united(named, pinned))
    transport.skew = first.skew
    try:
        provisioner = None
        if spec.provisioner is not None and password is not None:
            provisioner = await find(transport, spec.provisioner, password)
        return Authority(
            spec,
            pinned=pinned,
            named=named,
            intermediates=await fetch_intermediates(transport),
            transport=transport,
            provisioner=provisioner,
        )
    except BaseException:
        await transport.close()
        raise


def _chain(answer: Mapping[str, Any]) -> Chain:
    parts = answer.get("certChain") or [answer.get("crt"), answer.get("ca")]
    try:
        return parse_chain("".join(part if part.endswith("\n") else part + "\n" for part in parts).encode())
    except (Malformed, TypeError, AttributeError):
        raise BadAnswer("the CA answered with a certificate that cannot be read") from None
