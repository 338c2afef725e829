"""May this caller have this token? Who it is, how often it asks, what its namespace may have."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from certrenewal import metrics
from certrenewal.controller.obtaining import Authorities
from certrenewal.domain.asking import Ask, Caller, Refusal, parse_ask, parse_caller
from certrenewal.domain.bootstrap import denial, digest, unavailable
from certrenewal.domain.budget import Bucket
from certrenewal.domain.decision import Finding
from certrenewal.domain.policy import Asker
from certrenewal.domain.reasons import Reason
from certrenewal.domain.spec import InvalidSpec
from certrenewal.domain.status import timestamp
from certrenewal.kube.errors import ClusterError
from certrenewal.stepca.errors import AuthorityError

log = logging.getLogger(__name__)

AUDIENCE = "certrenewal.dev"
REVIEWS = 8  # under way at the API server at once
STRANGERS_PER_MINUTE = 60  # refused proofs from one address
MOST_BUCKETS = 10_000

Review = Callable[[str, str], Awaitable[str | None]]


class Denied(Exception):
    """A caller that gets no token: HTTP status, one word, and a sentence that it may read."""

    def __init__(
        self, status: HTTPStatus, reason: Reason | Refusal, message: str, *, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class Limiter:
    """How often each of many may come."""

    def __init__(self, per_minute: int, clock: Callable[[], datetime]) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}

    def check(self, who: str) -> None:
        """Denied where it came too often."""
        now = self._clock()
        bucket = self._buckets.get(who)
        if bucket is not None and (free := bucket.free_at(now)) > now:
            raise Denied(
                HTTPStatus.TOO_MANY_REQUESTS,
                Refusal.TOO_MANY_REQUESTS,
                f"at most {self._per_minute} requests in a minute",
                retry_after=free - now,
            )

    def count(self, who: str) -> None:
        """It came."""
        now = self._clock()
        if len(self._buckets) >= MOST_BUCKETS:
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.is_full(now)}
        self._buckets.setdefault(who, Bucket(self._per_minute, burst=self._per_minute)).take(now)


class Handout:
    """Hands out one-time tokens to pods that prove their ServiceAccount. Limits are those of this replica."""

    def __init__(
        self,
        *,
        review: Review,
        authorities: Authorities,
        labels: Mapping[str, Mapping[str, str]],
        namespaces: tuple[str, ...],
        cluster_domain: str,
        per_minute: int,
        clock: Callable[[], datetime],
    ) -> None:
        self._review = review
        self._authorities = authorities
        self._labels = labels
        self._namespaces = namespaces
        self._cluster_domain = cluster_domain
        self._clock = clock
        self._callers = Limiter(per_minute, clock)
        self._strangers = Limiter(STRANGERS_PER_MINUTE, clock)
        self._reviews = asyncio.Semaphore(REVIEWS)
        self._proofs: dict[str, Caller] = {}  # by digest; whom they were of, to refuse and never to admit

    async def identify(self, authorization: str, address: str) -> Caller:
        """The ServiceAccount that the header proves, for this audience; counted against its limit."""
        self._strangers.check(address)
        scheme, _, proof = authorization.partition(" ")
        if scheme.lower() != "bearer" or not proof.strip():
            raise _unauthorized("no proof: send a ServiceAccount token as Authorization: Bearer …")
        known = digest(proof.encode(errors="replace"))
        if known in self._proofs:
            self._callers.check(str(self._proofs[known]))
        try:
            caller = await self._proven(proof.strip())
        except Denied as denied:
            if denied.status == HTTPStatus.UNAUTHORIZED:
                self._strangers.count(address)
            raise
        if len(self._proofs) >= MOST_BUCKETS:
            self._proofs.clear()
        self._proofs[known] = caller
        self._callers.check(str(caller))
        self._callers.count(str(caller))
        return caller

    async def _proven(self, proof: str) -> Caller:
        try:
            async with self._reviews:
                username = await self._review(proof, AUDIENCE)
        except ClusterError as failure:
            log.warning("token not reviewed", extra={"error": str(failure)})
            raise Denied(
                HTTPStatus.SERVICE_UNAVAILABLE, Refusal.SERVICE_UNAVAILABLE, "the API server does not say who you are"
            ) from None
        if username is None:
            raise _unauthorized(f"this is no valid token for the audience {AUDIENCE}: project one with that audience")
        caller = parse_caller(username)
        if caller is None:
            raise _unauthorized("this is no token of a ServiceAccount")
        return caller

    def mint(self, caller: Caller, body: bytes) -> dict[str, Any]:
        """The answer to a request whose caller is known."""
        asker = self._asker(caller)
        ask = _read(body)
        view = self._authorities.view(ask.authority)
        if view is None:
            raise Denied(
                HTTPStatus.SERVICE_UNAVAILABLE,
                Reason.AUTHORITY_NOT_READY,
                f"CertAuthority {ask.authority} was not asked yet",
            )
        if view.reason == Reason.AUTHORITY_NOT_FOUND:
            message = f"authority: there is no CertAuthority {ask.authority!r}"
            raise Denied(HTTPStatus.BAD_REQUEST, Reason.AUTHORITY_NOT_FOUND, message)
        if denied := denial(ask.names, asker, view):
            raise _denied(HTTPStatus.FORBIDDEN, denied)
        if fault := unavailable(view):
            raise _denied(HTTPStatus.SERVICE_UNAVAILABLE, fault)
        return self._minted(caller, ask)

    def _minted(self, caller: Caller, ask: Ask) -> dict[str, Any]:
        try:
            authority = self._authorities.use(ask.authority)
            minted = authority.mint(names=ask.names, lifetime=ask.lifetime, now=self._clock())
        except AuthorityError as failure:
            raise Denied(HTTPStatus.SERVICE_UNAVAILABLE, failure.reason, str(failure)) from None
        metrics.TOKENS.labels(outcome="minted").inc()
        names = [str(name) for name in ask.names]
        log.info("token minted", extra={"caller": str(caller), "names": names, "expires": timestamp(minted.expires)})
        return {
            "token": minted.token,
            "caUrl": minted.url,
            "fingerprint": minted.fingerprint,
            "expiresAt": timestamp(minted.expires),
        }

    def _asker(self, caller: Caller) -> Asker:
        if self._namespaces and caller.namespace not in self._namespaces:
            message = f"namespace {caller.namespace} is none of those that are watched"
            raise Denied(HTTPStatus.FORBIDDEN, Refusal.FORBIDDEN, message)
        if caller.namespace not in self._labels:
            # Rules may select namespaces by labels that they do not have: it takes all of them to judge.
            message = f"namespace {caller.namespace} is not known yet, or is being deleted"
            raise Denied(HTTPStatus.SERVICE_UNAVAILABLE, Refusal.SERVICE_UNAVAILABLE, message)
        return Asker(
            namespace=caller.namespace,
            labels=self._labels[caller.namespace],
            cluster_domain=self._cluster_domain,
            account=caller.account,
        )


def _read(body: bytes) -> Ask:
    try:
        return parse_ask(json.loads(body))
    except InvalidSpec as invalid:
        raise Denied(HTTPStatus.BAD_REQUEST, Reason.INVALID_SPEC, str(invalid)) from None
    except (ValueError, RecursionError):
        raise Denied(HTTPStatus.BAD_REQUEST, Refusal.BAD_REQUEST, "the body is no JSON") from None


def _unauthorized(message: str) -> Denied:
    return Denied(HTTPStatus.UNAUTHORIZED, Refusal.UNAUTHORIZED, message)


def _denied(status: HTTPStatus, finding: Finding) -> Denied:
    return Denied(status, finding.reason, finding.message)


def seconds(delay: timedelta) -> int:
    """A Retry-After, whole seconds from one up."""
    return max(1, math.ceil(delay.total_seconds()))
