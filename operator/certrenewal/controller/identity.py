"""Which certificate does the token endpoint show? One of the CA that it serves, kept in memory and fresh by itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from datetime import datetime, timedelta

from certrenewal import metrics
from certrenewal.controller.obtaining import Authorities
from certrenewal.domain import policy
from certrenewal.domain.bootstrap import unavailable
from certrenewal.domain.certificate import Leaf, dump_key
from certrenewal.domain.keys import KeyAlgorithm
from certrenewal.domain.names import Name
from certrenewal.domain.policy import Asker
from certrenewal.domain.reasons import Reason
from certrenewal.domain.status import timestamp
from certrenewal.domain.timing import SHORTEST_RETRY, plan_renewal, retry_delay
from certrenewal.stepca import keys
from certrenewal.stepca.authority import Issued
from certrenewal.stepca.errors import AuthorityError, NotReady, Unreachable
from certrenewal.tls import show

log = logging.getLogger(__name__)

PATIENCE = 60.0  # seconds between two looks at what may be due


class Serving:
    """The endpoint's own certificate. Its key is never written anywhere."""

    def __init__(
        self,
        *,
        names: tuple[Name, ...],
        authority: str,
        authorities: Authorities,
        asker: Callable[[], Asker],
        identity: str,
        clock: Callable[[], datetime],
    ) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.ready = asyncio.Event()
        self._names = names
        self._authority = authority
        self._authorities = authorities
        self._asker = asker
        self._identity = identity
        self._clock = clock
        self._issued: Issued | None = None
        self._due = clock()
        self._failures = 0
        self._told = ""
        self._news = asyncio.Event()

    def authority_changed(self, name: str) -> None:
        """An authority may be ready now, or have other roots."""
        if name == self._authority:
            self._news.set()

    async def run(self) -> None:
        """Have one, and the next before that one is too old, for ever."""
        metrics.TOKEN_ENDPOINT_EXPIRY.set(0)
        while True:
            self._news.clear()
            if self._clock() >= self._due or not self._is_trusted():
                await self._obtain()
            wait = min((self._due - self._clock()).total_seconds(), PATIENCE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(wait, 0.001)):
                    await self._news.wait()

    def _is_trusted(self) -> bool:
        """Whether the certificate at hand leads to a root of the authority, as far as that is known."""
        view = self._authorities.view(self._authority)
        return self._issued is None or view is None or not view.roots or self._issued.chain.holds(view.roots)

    async def _obtain(self) -> None:
        try:
            self._use(await self._sign())
        except AuthorityError as failure:
            self._failed(failure)
        except Exception as failure:
            log.exception("token endpoint has no certificate")
            self._failed(NotReady(Reason.AUTHORITY_NOT_READY, type(failure).__name__))

    async def _sign(self) -> Issued:
        view = self._authorities.view(self._authority)
        if view is None:
            raise NotReady(Reason.AUTHORITY_NOT_READY, f"CertAuthority {self._authority} was not asked yet")
        if fault := unavailable(view):
            raise NotReady(fault.reason, fault.message)
        verdict = policy.judge(self._names, None, asker=self._asker(), policy=view.policy, authority=view.name)
        if verdict.denial:
            raise NotReady(Reason.NAME_DENIED, verdict.denial)
        key = await keys.generate(KeyAlgorithm.EC_P256)
        try:
            authority = self._authorities.use(self._authority)
            return await authority.sign(key, names=self._names, duration=verdict.max_duration, now=self._clock())
        except Unreachable as failure:
            if not failure.answered:
                self._authorities.report(self._authority, failure)
            raise

    def _use(self, issued: Issued) -> None:
        """From the next handshake on; connections that are open stay."""
        leaf = issued.chain.leaf
        show(self.context, dump_key(issued.key) + issued.chain.pem)
        self._issued, self._due, self._failures, self._told = issued, self._plan(leaf), 0, ""
        metrics.TOKEN_ENDPOINT_EXPIRY.set(leaf.not_after.timestamp())
        log.info("token endpoint has a certificate", extra={"serial": leaf.serial, "renews": timestamp(self._due)})
        self.ready.set()

    def _plan(self, leaf: Leaf) -> datetime:
        now = self._clock()
        plan = plan_renewal(
            leaf.not_before,
            leaf.not_after,
            renew_before=None,
            uid=self._identity,
            serial=leaf.serial,
            obtained=now,
        )
        return max(plan.due, now + SHORTEST_RETRY)

    def _failed(self, failure: AuthorityError) -> None:
        now = self._clock()
        self._failures += 1
        remaining = self._issued.chain.leaf.not_after - now if self._issued else timedelta(0)
        self._due = now + retry_delay(self._failures, remaining, asked=failure.retry_after)
        if self._told != str(failure):
            self._told = str(failure)
            log.warning(
                "token endpoint's certificate not signed",
                extra={"reason": failure.reason.value, "error": str(failure), "listens": self.ready.is_set()},
            )
