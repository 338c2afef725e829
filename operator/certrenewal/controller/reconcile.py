"""One look at one certificate: observe, decide, take the one step, say what happened.

Every effect is safe to repeat, and each is preceded by the question whether this replica still leads. A kill at any
await is healed by the next look: the certificate in the Secret, the mark on the pod template and the status are all
there is. A certificate that was signed but could not be written is kept for the next attempt.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from certrenewal import metrics
from certrenewal.controller.adoption import Adoption, renew_now
from certrenewal.controller.cache import Cache, Key, Renewal, parse_renewal
from certrenewal.controller.reporter import Reporter, about
from certrenewal.domain.authority import AuthorityView
from certrenewal.domain.certificate import Leaf, dump_certificates, dump_key
from certrenewal.domain.decision import (
    DURATION_TOLERANCE,
    Finding,
    Observed,
    Obtain,
    Repair,
    Rest,
    Stop,
    decide,
    is_good,
    read_held,
)
from certrenewal.domain.policy import Asker
from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import State
from certrenewal.domain.routes import Route, ladder
from certrenewal.domain.spec import DataKeys, Spec, WorkloadRef, parse_spec
from certrenewal.domain.standing import rolled_out, stand
from certrenewal.domain.status import (
    Condition,
    Recorded,
    Status,
    condition_of,
    difference,
    moment_of,
    read_recorded,
    timestamp,
    with_certificate,
    with_condition,
    with_failure,
    with_renewal,
    with_workloads,
    without_failure,
)
from certrenewal.domain.timing import retry_delay
from certrenewal.kube.errors import Conflict, NotFound, Rejected
from certrenewal.kube.store import Secret, Store
from certrenewal.stepca import keys
from certrenewal.stepca.authority import Authority, Issued
from certrenewal.stepca.errors import AuthorityError, Refused, Unreachable

log = logging.getLogger(__name__)


class NotLeading(Exception):
    """Another replica acts now."""


class Authorities(Protocol):
    """What a look needs of the authorities."""

    def view(self, name: str) -> AuthorityView | None:
        """What is known of an authority, None before it was first asked."""

    def use(self, name: str) -> Authority:
        """The authority itself, which its view calls ready."""

    def report(self, name: str, failure: Unreachable) -> None:
        """A call found the CA unreachable: no other may follow before a probe found it back."""


class Restarts(Protocol):
    """Who restarts workloads."""

    def want(self, namespace: str, ref: WorkloadRef, urgency: float) -> None:
        """Restart this workload when its turn comes, if it still runs an older certificate then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Obtained:
    """A certificate of ours, from the CA's answer to the status that tells of it."""

    issued: Issued
    reason: Reason
    duration: timedelta | None


class Reconciler:
    """Looks at certificates, one key at a time for each worker."""

    def __init__(
        self,
        *,
        cache: Cache,
        store: Store,
        authorities: Authorities,
        restarts: Restarts,
        reporter: Reporter,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
        cluster_domain: str,
    ) -> None:
        self._cache = cache
        self._store = store
        self._authorities = authorities
        self._restarts = restarts
        self._reporter = reporter
        self._leads = leads
        self._clock = clock
        self._cluster_domain = cluster_domain
        self._adoption = Adoption(cache, store, reporter)
        self._obtained: dict[Key, _Obtained] = {}

    async def look(self, key: Key) -> datetime | None:
        """Take the next step for ``key``; when to look again, None where only news can change anything."""
        self._guard()
        renewal = await self._adoption.settle(key)
        if renewal is None:
            self._forget(key)
            return None
        if objection := self._adoption.objection(renewal):
            return await self._stop(renewal, objection, leaf=None, good=False)
        spec = parse_spec(renewal.key.name, renewal.spec)
        if self._is_quiet(renewal, spec):
            return await self._settle(
                renewal, renewal.status, spec, fingerprint=read_recorded(renewal.status).fingerprint
            )
        view = self._authorities.view(spec.authority)
        if view is None:
            return None  # its first contact is under way and will bring us back
        return await self._step(renewal, spec, view)

    async def _step(self, renewal: Renewal, spec: Spec, view: AuthorityView) -> datetime | None:
        secret = await self._store.read_secret(renewal.key.namespace, spec.secret_name)
        observed = self._observe(renewal, spec, view, secret)
        now = self._clock()
        step = decide(observed, now)
        match step:
            case Rest():
                return await self._rest(renewal, observed, secret)
            case Stop(finding):
                good = finding.reason is not Reason.IMMUTABLE and is_good(observed, now) is None
                return await self._stop(renewal, finding, leaf=observed.leaf, good=good)
            case Repair(finding):
                return await self._repair(renewal, observed, secret, finding)
            case Obtain():
                return await self._obtain(renewal, observed, secret, step)

    def _observe(self, renewal: Renewal, spec: Spec, view: AuthorityView, secret: Secret | None) -> Observed:
        recorded = read_recorded(renewal.status)
        data = secret.data if secret else {}
        held = read_held(
            data.get(spec.data_keys.crt, b""), data.get(spec.data_keys.key, b""), data.get(spec.data_keys.ca, b"")
        )
        known = held.chain is not None and held.chain.leaf.fingerprint == recorded.fingerprint
        return Observed(
            namespace=renewal.key.namespace,
            uid=renewal.uid,
            spec=spec,
            held=held,
            authority=view,
            asker=Asker(
                namespace=renewal.key.namespace,
                labels=self._cache.labels.get(renewal.key.namespace, {}),
                cluster_domain=self._cluster_domain,
            ),
            known_names=recorded.names,
            asked_duration=recorded.duration if known else None,
            immutable=secret.immutable if secret else False,
            renew_requested=renew_now(self._cache, renewal) not in ("", recorded.renew_now),
        )

    # -- the steps ---------------------------------------------------------------------------------------------

    async def _rest(self, renewal: Renewal, observed: Observed, secret: Secret | None) -> datetime | None:
        assert secret is not None
        assert observed.leaf is not None
        return await self._tell_good(renewal, observed, observed.leaf, (secret.uid, secret.resource_version))

    async def _repair(
        self, renewal: Renewal, observed: Observed, secret: Secret | None, finding: Finding
    ) -> datetime | None:
        assert secret is not None
        assert observed.leaf is not None
        self._guard()
        version = await self._store.write_secret(secret, {observed.spec.data_keys.ca: observed.authority.bundle})
        self._saw_own_write(secret, version)
        if read_recorded(renewal.status).fingerprint is not None:
            await self._reporter.tell(about(renewal), Reason.REPAIRED, finding.message)
        return await self._tell_good(renewal, observed, observed.leaf, (secret.uid, version))

    async def _obtain(
        self, renewal: Renewal, observed: Observed, secret: Secret | None, step: Obtain
    ) -> datetime | None:
        renewal = await self._promise_restarts(renewal, observed, secret, step.finding)
        try:
            obtained = self._kept(renewal, observed) or await self._ask(observed, step)
        except AuthorityError as failure:
            return await self._failed(renewal, observed, failure.reason, failure)
        self._obtained[renewal.key] = obtained
        try:
            uid, version = await self._write(renewal, observed, secret, obtained.issued)
        except (Conflict, NotFound):
            return self._clock()  # somebody wrote in between: look again, with the certificate kept
        except Rejected as failure:
            return await self._failed(renewal, observed, Reason.SECRET_NOT_WRITTEN, failure)
        if secret is not None:
            self._saw_own_write(secret, version)
        return await self._tell_good(
            renewal, observed, obtained.issued.chain.leaf, (uid, version), fresh=secret is not None
        )

    def _kept(self, renewal: Renewal, observed: Observed) -> _Obtained | None:
        """A certificate that was signed before and not written, where it is still what is wanted."""
        kept = self._obtained.get(renewal.key)
        if kept is None:
            return None
        issued = kept.issued
        candidate = replace(
            observed,
            held=read_held(issued.chain.pem, dump_key(issued.key), observed.authority.bundle),
            asked_duration=kept.duration,
            renew_requested=False,
        )
        return kept if isinstance(decide(candidate, self._clock()), Rest) else None

    async def _ask(self, observed: Observed, step: Obtain) -> _Obtained:
        """Go down the ladder of routes: one that the CA refuses gives way to the next."""
        routes = ladder(
            observed.leaf,
            anew=step.anew,
            rotation=observed.spec.key_rotation,
            can_sign=observed.authority.can_sign,
            now=self._clock(),
        )
        authority = self._authorities.use(observed.authority.name)
        refusals: list[Refused] = []
        for route in routes:
            self._guard()
            try:
                issued, duration = await self._by(route, authority, observed, step)
            except Refused as refused:
                refusals.append(refused)
                log.info("route refused", extra={"route": route.value, "status": refused.status, "text": str(refused)})
            except Unreachable as failure:
                self._authorities.report(observed.authority.name, failure)
                raise
            else:
                return _Obtained(issued=issued, reason=step.finding.reason, duration=duration)
        raise refusals[-1] if refusals else Refused(403, "no route is left for this certificate")

    async def _by(
        self, route: Route, authority: Authority, observed: Observed, step: Obtain
    ) -> tuple[Issued, timedelta | None]:
        """One route, and the duration that was asked for with it."""
        now = self._clock()
        held = observed.held
        if route is Route.SIGN:
            return await self._sign(authority, observed, step)
        assert held.chain is not None
        assert held.key is not None
        asked = observed.asked_duration or observed.spec.duration
        match route:
            case Route.RENEW_TOKEN:
                return await authority.renew_by_token(held.chain, held.key, now=now), asked
            case Route.RENEW_MTLS:
                return await authority.renew_by_mtls(held.chain, held.key, now=now), asked
            case Route.REKEY:
                key = await keys.generate(observed.key_algorithm)
                return await authority.rekey(held.chain, held.key, key, now=now), asked

    async def _sign(self, authority: Authority, observed: Observed, step: Obtain) -> tuple[Issued, timedelta | None]:
        key = await keys.generate(observed.key_algorithm)
        duration = step.duration
        issued = await authority.sign(key, names=observed.names, duration=duration, now=self._clock())
        limit = step.max_duration
        if duration is None and limit is not None and issued.chain.leaf.lifetime > limit + DURATION_TOLERANCE:
            # Nobody can ask step-ca for its default beforehand: where it is longer than the policy allows, ask again.
            issued = await authority.sign(key, names=observed.names, duration=limit, now=self._clock())
        return issued, duration

    async def _write(
        self, renewal: Renewal, observed: Observed, secret: Secret | None, issued: Issued
    ) -> tuple[str, str]:
        """Chain, key and roots in one request; the Secret's uid and new resourceVersion."""
        names = observed.spec.data_keys
        data = {
            names.crt: dump_certificates(issued.chain.certificates),
            names.key: dump_key(issued.key),
            names.ca: observed.authority.bundle,
        }
        self._guard()
        if secret is not None:
            return secret.uid, await self._store.write_secret(secret, data)
        created = await self._store.create_secret(
            renewal.key.namespace, observed.spec.secret_name, data, tls=names == DataKeys()
        )
        return created.uid, created.resource_version

    # -- what users read ---------------------------------------------------------------------------------------

    async def _promise_restarts(
        self, renewal: Renewal, observed: Observed, secret: Secret | None, need: Finding
    ) -> Renewal:
        """Before the very first certificate, note which workloads run without one.

        A kill between the Secret and the status would otherwise leave nothing that says they have to be restarted.
        """
        recorded = read_recorded(renewal.status)
        workloads = self._cache.dependents(renewal.secret)
        if recorded.fingerprint is not None or secret is None or not workloads or recorded.workloads:
            return renewal
        standings = stand(
            workloads,
            secret=renewal.secret.name,
            fingerprint=None,
            restart=observed.spec.restart,
            recorded=recorded,
        )
        status = with_workloads(renewal.status, standings)
        ready = Condition(type="Ready", status="False", reason=need.reason, message=need.message)
        return await self._publish(renewal, self._with(renewal, status, ready))

    async def _tell_good(
        self,
        renewal: Renewal,
        observed: Observed,
        leaf: Leaf,
        written: tuple[str, str],
        *,
        fresh: bool = False,
    ) -> datetime | None:
        """Status, Event and metrics of a Secret that holds what is wanted; then its workloads."""
        recorded = read_recorded(renewal.status)
        obtained = self._obtained.get(renewal.key)
        ours = obtained is not None and obtained.issued.chain.leaf.fingerprint == leaf.fingerprint
        duration = obtained.duration if obtained and ours else observed.asked_duration
        plan = observed.plan(leaf)
        status = without_failure(with_certificate(renewal.status, leaf, due=plan.due, duration=duration))
        if obtained and ours:
            status = with_renewal(status, leaf, route=obtained.issued.route, reason=obtained.reason, now=self._clock())
        if requested := renew_now(self._cache, renewal):
            status = {**status, "renewNow": requested}
        status = {
            **status,
            "observedSecret": {"uid": written[0], "resourceVersion": written[1], "roots": _digest(observed.authority)},
        }
        ready = Condition(
            type="Ready",
            status="True",
            reason=_good_reason(status, leaf),
            message=f"valid until {timestamp(leaf.not_after)}, to be renewed at {timestamp(plan.due)}",
        )
        status = self._with(renewal, status, ready)
        due = await self._settle(renewal, status, observed.spec, fingerprint=leaf.fingerprint, fresh=fresh)
        self._obtained.pop(renewal.key, None)
        await self._announce(renewal, recorded, leaf, obtained if ours else None, plan.ignored)
        return due

    async def _announce(
        self, renewal: Renewal, recorded: Recorded, leaf: Leaf, obtained: _Obtained | None, ignored: str | None
    ) -> None:
        subject = about(renewal)
        until = f"valid until {timestamp(leaf.not_after)}"
        if obtained is not None:
            route = obtained.issued.route
            metrics.RENEWALS.labels(route=route.value, reason=obtained.reason.value).inc()
            reason = Reason.ISSUED if route is Route.SIGN else Reason.RENEWED
            await self._reporter.tell(
                subject, reason, f"serial {leaf.serial} by {route.value} ({obtained.reason.value}), {until}"
            )
        elif leaf.fingerprint != recorded.fingerprint:
            await self._reporter.tell(subject, Reason.ADOPTED, f"serial {leaf.serial} found in the Secret, {until}")
        if ignored and leaf.fingerprint != recorded.fingerprint:
            await self._reporter.tell(subject, Reason.RENEW_BEFORE_IGNORED, ignored, warning=True)

    async def _settle(
        self, renewal: Renewal, status: Status, spec: Spec, *, fingerprint: str | None, fresh: bool = False
    ) -> datetime | None:
        """Bring the workloads into the status, write it, and put those that are owed a restart into the queue."""
        standings = stand(
            self._cache.dependents(renewal.secret),
            secret=renewal.secret.name,
            fingerprint=fingerprint,
            restart=spec.restart,
            recorded=read_recorded(renewal.status),
            fresh=fresh,
        )
        status = self._with(renewal, with_workloads(status, standings), rolled_out(standings))
        was = condition_of(renewal.status, "RolledOut")
        renewal = await self._publish(renewal, status)
        for standing in standings:
            if standing.state is State.PENDING:
                self._restarts.want(renewal.key.namespace, standing.ref, renewal.urgency)
        now_is = condition_of(status, "RolledOut")
        if was.get("status") == "False" and now_is["status"] == "True" and now_is["reason"] == Reason.ROLLED_OUT:
            await self._reporter.tell(about(renewal), Reason.ROLLED_OUT, now_is["message"])
        if now_is["reason"] == Reason.RESTART_FAILED and was.get("reason") != Reason.RESTART_FAILED:
            await self._reporter.tell(about(renewal), Reason.RESTART_FAILED, now_is["message"], warning=True)
        return moment_of(status.get("renewalTime"))

    async def _stop(self, renewal: Renewal, finding: Finding, *, leaf: Leaf | None, good: bool) -> datetime | None:
        """Nothing can be done until somebody changes something: say so, once."""
        now = self._clock()
        status = renewal.status
        failure = status.get("failure") or {}
        if good or finding.reason in (Reason.AUTHORITY_UNREACHABLE, Reason.NAME_DENIED):
            if (failure.get("reason"), failure.get("message")) != (finding.reason, finding.message):
                status = with_failure(status, reason=finding.reason, message=finding.message, now=now, attempt_at=None)
        else:
            status = without_failure(status)
        ready = Condition(
            type="Ready", status="True" if good else "False", reason=finding.reason, message=finding.message
        )
        await self._refuse(renewal, self._with(renewal, status, ready))
        return leaf.not_after if leaf and leaf.not_after > now else None

    async def _failed(self, renewal: Renewal, observed: Observed, reason: Reason, failure: Exception) -> datetime:
        """An attempt failed: count it, say so, and try again when it is time."""
        now = self._clock()
        recorded = read_recorded(renewal.status)
        remaining = observed.leaf.not_after - now if observed.leaf else timedelta(0)
        asked = failure.retry_after if isinstance(failure, AuthorityError) else None
        attempt_at = now + retry_delay(recorded.failures + 1, remaining, asked=asked)
        good = is_good(observed, now) is None
        status = with_failure(renewal.status, reason=reason, message=str(failure), now=now, attempt_at=attempt_at)
        ready = Condition(type="Ready", status="True" if good else "False", reason=reason, message=str(failure))
        await self._refuse(renewal, self._with(renewal, status, ready))
        return attempt_at

    async def _refuse(self, renewal: Renewal, status: Status) -> None:
        """Write a status that tells of trouble, with one Event where it is new trouble."""
        before, after = condition_of(renewal.status, "Ready"), condition_of(status, "Ready")
        await self._publish(renewal, status)
        if any(before.get(part) != after[part] for part in ("status", "reason", "message")):
            metrics.FAILURES.labels(reason=after["reason"]).inc()
            await self._reporter.tell(about(renewal), Reason(after["reason"]), after["message"], warning=True)

    def _with(self, renewal: Renewal, status: Status, condition: Condition) -> Status:
        return with_condition(status, condition, generation=renewal.generation, now=self._clock())

    async def _publish(self, renewal: Renewal, status: Status) -> Renewal:
        """Write what changed of a status, and remember it."""
        status = {**status, "secretName": renewal.secret.name}
        patch = difference(renewal.status, status)
        if not patch:
            return renewal
        self._guard()
        try:
            body = await self._store.write_status(renewal.key.namespace, renewal.key.name, renewal.uid, patch)
        except NotFound:
            return renewal
        written = parse_renewal(body)
        self._cache.put_renewal(written)
        self._measure(written)
        return written

    # -- small things ------------------------------------------------------------------------------------------

    def _is_quiet(self, renewal: Renewal, spec: Spec) -> bool:
        """Whether status tells that nothing has to be read: the Secret is as it was, and not due."""
        status = renewal.status
        seen, secret = status.get("observedSecret") or {}, self._cache.secrets.get(renewal.secret)
        due = moment_of(status.get("renewalTime"))
        view = self._authorities.view(spec.authority)
        return (
            secret is not None
            and due is not None
            and self._clock() < due
            and status.get("observedGeneration") == renewal.generation
            and (seen.get("uid"), seen.get("resourceVersion")) == (secret.uid, secret.version)
            and (view is None or not view.ready or seen.get("roots") == _digest(view))
            and renew_now(self._cache, renewal) in ("", status.get("renewNow"))
            and "failure" not in status
            and condition_of(status, "Ready").get("status") == "True"
        )

    def _saw_own_write(self, secret: Secret, version: str) -> None:
        """The watch will show us our own write: it is no news."""
        key = Key(secret.namespace, secret.name)
        known = self._cache.secrets.get(key)
        if known is not None and known.uid == secret.uid:
            self._cache.secrets[key] = replace(known, version=version)

    def _guard(self) -> None:
        if not self._leads():
            raise NotLeading

    def _measure(self, renewal: Renewal) -> None:
        labels = {"namespace": renewal.key.namespace, "name": renewal.key.name}
        ready = condition_of(renewal.status, "Ready").get("status") == "True"
        metrics.CERTIFICATE_READY.labels(**labels).set(ready)
        if renewal.urgency:
            metrics.CERTIFICATE_EXPIRY.labels(**labels).set(renewal.urgency)

    def _forget(self, key: Key) -> None:
        self._obtained.pop(key, None)
        for gauge in (metrics.CERTIFICATE_READY, metrics.CERTIFICATE_EXPIRY):
            with contextlib.suppress(KeyError):
                gauge.remove(key.namespace, key.name)


def _digest(view: AuthorityView) -> str:
    """A short name for a set of roots."""
    return hashlib.sha256(view.bundle).hexdigest()[:16]


def _good_reason(status: Status, leaf: Leaf) -> Reason:
    """Where the certificate at hand came from: from us, by one of two ways, or from somebody else."""
    history = status.get("history") or ()
    if not history or history[0]["fingerprint"] != leaf.fingerprint:
        return Reason.ADOPTED
    return Reason.ISSUED if history[0]["route"] == Route.SIGN else Reason.RENEWED
