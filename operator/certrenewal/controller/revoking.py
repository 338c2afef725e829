"""When is the CA told that a certificate is out of use: its successor is in use, or its CertRenewal is to go?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from certrenewal import metrics
from certrenewal.controller.cache import Cache, Key, Renewal, parse_renewal, spec_of
from certrenewal.controller.obtaining import Authorities
from certrenewal.controller.reporter import Reporter, about
from certrenewal.domain.certificate import Leaf
from certrenewal.domain.observed import read_held
from certrenewal.domain.reasons import Reason
from certrenewal.domain.retired import Retired, postponed, read_retired, with_retired
from certrenewal.domain.spec import Revoke, Spec
from certrenewal.domain.status import Status, moment_of
from certrenewal.kube.errors import Conflict, NotFound
from certrenewal.kube.store import Store
from certrenewal.stepca.errors import AuthorityError, Refused, Unreachable

FINALIZER = "certrenewal.dev/revoke"
RETRY = timedelta(minutes=1)
LONGEST_HOLD = timedelta(minutes=10)  # a CertRenewal that is to go waits so long for its CA


class Publish(Protocol):
    """Who writes statuses."""

    async def publish(self, renewal: Renewal, status: Status) -> Renewal:
        """Write what changed of a status, and remember it."""


class Revoker:
    """Revokes what is retired, and holds a CertRenewal that is to go until that is done."""

    def __init__(
        self,
        *,
        cache: Cache,
        store: Store,
        authorities: Authorities,
        reporter: Reporter,
        publish: Publish,
        require: Callable[[], None],
        clock: Callable[[], datetime],
        grace: timedelta,
    ) -> None:
        self._cache = cache
        self._store = store
        self._authorities = authorities
        self._reporter = reporter
        self._publish = publish
        self._require = require
        self._clock = clock
        self._grace = grace

    async def hold(self, renewal: Renewal, spec: Spec) -> Renewal | None:
        """Before a certificate is there, see to it that its CertRenewal cannot go without it being revoked.

        None where it changed meanwhile, and is to be looked at once more.
        """
        if Revoke.ON_DELETE not in spec.revoke:
            return renewal
        renewal = await self._finalize(renewal, wanted=True)
        return renewal if FINALIZER in renewal.finalizers else None

    async def settle(self, key: Key) -> datetime | None:
        """Revoke what is due; when to look again."""
        renewal = self._cache.renewals.get(key)
        if renewal is None or renewal.deleting is not None:
            return None
        spec = spec_of(renewal)
        if spec is not None:
            renewal = await self._finalize(renewal, wanted=Revoke.ON_DELETE in spec.revoke)
        retired = read_retired(renewal.status)
        left: list[Retired] = []
        moments: list[datetime] = []
        for one in retired:
            if not one.at_once and spec is not None and Revoke.ON_RENEW not in spec.revoke:
                continue
            due = one.due(renewal.status, self._grace)
            if self._authorities.view(self._issuer(renewal, one)) is None:
                left.append(one)  # its first contact is under way
                moments.append(self._clock() + RETRY)
                continue
            after = one if due is None or due > self._clock() else await self._revoke(renewal, one)
            if after is not None:
                left.append(after)
                moments += filter(None, [after.due(renewal.status, self._grace)])
        if left != list(retired):
            await self._publish.publish(renewal, with_retired(renewal.status, left))
        return min(moments, default=None)

    async def release(self, renewal: Renewal) -> datetime | None:
        """A CertRenewal is to go: revoke its certificates, and let it, at the latest after a while."""
        if FINALIZER not in renewal.finalizers or renewal.deleting is None:
            return None
        now = self._clock()
        if self._authorities.view(renewal.authority) is None and now < renewal.deleting + LONGEST_HOLD:
            return renewal.deleting + LONGEST_HOLD  # its first contact is under way and will bring us back
        left = [one for one in await self._all_of(renewal) if await self._revoke(renewal, one) is not None]
        if left and now < renewal.deleting + LONGEST_HOLD:
            return min(now + RETRY, renewal.deleting + LONGEST_HOLD)
        if left:
            serials = ", ".join(one.serial for one in left)
            message = f"serial {serials} was not revoked within {LONGEST_HOLD}, and is let go: revoke it at the CA"
            await self._reporter.tell(about(renewal), Reason.NOT_REVOKED, message, warning=True)
        renewal = await self._finalize(renewal, wanted=False)
        return now + RETRY if FINALIZER in renewal.finalizers else None

    async def _all_of(self, renewal: Renewal) -> list[Retired]:
        """What is retired, the certificate in use, and one of which status does not tell: but none that others keep."""
        now, certificate = self._clock(), renewal.status.get("certificate") or {}
        found = {one.serial: one for one in read_retired(renewal.status)}
        if end := moment_of(certificate.get("notAfter")):
            found[certificate["serial"]] = Retired(
                serial=certificate["serial"], not_after=end, since=now, authority=certificate.get("authority", "")
            )
        others = [self._cache.renewals[key] for key in self._cache.claims(renewal.secret) if key != renewal.key]
        rivals = [other for other in others if other.deleting is None]
        if not rivals and (leaf := await self._held(renewal)):
            found.setdefault(leaf.serial, Retired(serial=leaf.serial, not_after=leaf.not_after, since=now))
        kept = {(rival.status.get("certificate") or {}).get("serial") for rival in rivals}
        return [one for serial, one in found.items() if serial not in kept]

    def _issuer(self, renewal: Renewal, one: Retired) -> str:
        """The authority that issued it; the one that is asked now, where that is not known or is gone."""
        view = self._authorities.view(one.authority) if one.authority else None
        is_gone = view is not None and view.reason == Reason.AUTHORITY_NOT_FOUND
        return renewal.authority if is_gone or not one.authority else one.authority

    async def _held(self, renewal: Renewal) -> Leaf | None:
        """The certificate of this authority that the Secret holds."""
        spec, view = spec_of(renewal), self._authorities.view(renewal.authority)
        secret = await self._store.read_secret(renewal.secret.namespace, renewal.secret.name)
        chain = read_held(secret.data.get(spec.data_keys.crt, b""), b"", b"").chain if secret and spec else None
        return chain.leaf if chain and view and chain.holds(view.roots) else None

    async def _finalize(self, renewal: Renewal, *, wanted: bool) -> Renewal:
        """Put our finalizer on it, or take it off."""
        if (FINALIZER in renewal.finalizers) is wanted:
            return renewal
        self._require()
        finalizers = [name for name in renewal.finalizers if name != FINALIZER] + ([FINALIZER] if wanted else [])
        try:
            body = await self._store.set_finalizers(
                renewal.key.namespace, renewal.key.name, renewal.uid, renewal.version, finalizers
            )
        except (Conflict, NotFound):
            return renewal  # it changed meanwhile: news of that brings us back
        changed = parse_renewal(body)
        if changed.deleting is None:
            self._cache.answer_renewal(changed)
        return changed

    async def _revoke(self, renewal: Renewal, one: Retired) -> Retired | None:
        """Revoke one serial: None where that is done, or never can be."""
        now, name = self._clock(), self._issuer(renewal, one)
        if one.not_after <= now:
            return None  # what has ended needs no revocation
        self._require()
        view = self._authorities.view(name)
        if view is None or not view.ready:
            return postponed(one, message=view.message if view else "", until=now + RETRY)
        try:
            await self._authorities.use(name).revoke(one.serial, reason="replaced", now=now)
        except Refused as refusal:
            metrics.REVOCATIONS.labels(outcome="refused").inc()
            message = f"serial {one.serial}: {refusal}"
            await self._reporter.tell(about(renewal), Reason.NOT_REVOKED, message, warning=True)
            return None  # asked again it would say the same
        except AuthorityError as failure:
            metrics.REVOCATIONS.labels(outcome="failed").inc()
            if isinstance(failure, Unreachable) and not failure.answered:
                self._authorities.report(name, failure)
            return postponed(one, message=str(failure), until=now + RETRY)
        metrics.REVOCATIONS.labels(outcome="revoked").inc()
        await self._reporter.tell(about(renewal), Reason.REVOKED, f"serial {one.serial}")
        return None
