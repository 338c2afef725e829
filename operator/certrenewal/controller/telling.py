"""What do users read of one certificate: its status, one Event for each change, and its metrics."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from cryptography import x509

from certrenewal import metrics
from certrenewal.controller.cache import Cache, Key, Renewal, parse_renewal, spec_of
from certrenewal.controller.obtaining import Obtained
from certrenewal.controller.owed import Debt, current_of, debt_of
from certrenewal.controller.reporter import Reporter, about
from certrenewal.domain.authority import AuthorityView
from certrenewal.domain.certificate import Leaf, fingerprint
from certrenewal.domain.decision import Finding
from certrenewal.domain.observed import Observed
from certrenewal.domain.outputs import announced_keys, content_of, recorded_keys, written_condition
from certrenewal.domain.reasons import Reason
from certrenewal.domain.retired import retire
from certrenewal.domain.rollout import State, Workload, mark
from certrenewal.domain.routes import Route
from certrenewal.domain.serving import SERVING, Question, is_answered, is_told, not_yet, question_of
from certrenewal.domain.spec import Revoke, Spec, WorkloadRef
from certrenewal.domain.standing import Current, excuse, next_change, rolled_out, stand, widened
from certrenewal.domain.status import (
    LONGEST_MESSAGE,
    Condition,
    Recorded,
    Revoking,
    Standing,
    Status,
    condition_of,
    difference,
    moment_of,
    timestamp,
    with_certificate,
    with_condition,
    with_failure,
    with_renewal,
    with_revoked,
    with_revoking,
    with_workloads,
    without,
    without_condition,
)
from certrenewal.domain.validity import doubts
from certrenewal.kube.errors import NotFound
from certrenewal.kube.store import Store


class Restarts(Protocol):
    """Who restarts workloads."""

    def want(self, namespace: str, ref: WorkloadRef, debt: Debt) -> None:
        """Restart this workload when its turn comes, if it still runs an older certificate then."""

    def spare(self, namespace: str, ref: WorkloadRef, secret: str) -> None:
        """This workload is owed no restart for that Secret."""

    def refusals(self, namespace: str) -> Mapping[WorkloadRef, str]:
        """The workloads that the API server does not let us restart, with its words."""


class Servers(Protocol):
    """Who asks servers which certificate they show."""

    def want(self, key: Key, question: Question) -> Condition | None:
        """Ask this, unless it is being asked already; the answer so far."""

    def spare(self, key: Key) -> None:
        """Nothing is to be asked about this certificate any more, or not now."""


class Hooks(Protocol):
    """Who delivers hooks."""

    def tell(self, renewal: Renewal, status: Status) -> tuple[Status, Condition | None]:
        """The status with what became of its hooks, and the condition HooksDelivered where it has one."""

    def want(self, renewal: Renewal) -> None:
        """Deliver what this CertRenewal owes by its status."""

    def forget(self, key: Key) -> None:
        """The CertRenewal is gone."""


class Teller:
    """Writes statuses and Events. Each method returns when to look again, None where only news can change anything."""

    def __init__(
        self,
        *,
        cache: Cache,
        store: Store,
        restarts: Restarts,
        hooks: Hooks,
        reporter: Reporter,
        require: Callable[[], None],
        clock: Callable[[], datetime],
        servers: Servers | None = None,
        hurry: Callable[[Workload, str, str], None] | None = None,
        may_signal: bool = True,
    ) -> None:
        self._cache = cache
        self._store = store
        self._restarts = restarts
        self._servers = servers
        self._hurry = hurry
        self._may_signal = may_signal
        self._hooks = hooks
        self._reporter = reporter
        self._require = require
        self._clock = clock

    async def good(
        self,
        renewal: Renewal,
        observed: Observed,
        leaf: Leaf,
        *,
        secret: tuple[str, str],
        stores: Iterable[str],
        obtained: Obtained | None,
        first: bool,
    ) -> datetime | None:
        """The Secret (its uid and resourceVersion) holds what is wanted; ``obtained`` where it is news of ours.

        ``stores``: SHA-256 of the key stores in it. ``first``: workloads of which nothing is known ran without a
        certificate.
        """
        recorded = Recorded(renewal.status)
        duration = obtained.duration if obtained else observed.asked_duration
        plan = observed.plan(leaf, obtained=self._clock() if obtained else observed.obtained)
        chain = obtained.issued.chain if obtained else observed.held.chain
        found = obtained.issued.root if obtained else observed.root
        issuer, root = chain.issuer(found) if chain else None, _root(leaf, found, recorded)
        known = obtained is None and leaf.fingerprint == recorded.fingerprint
        status = with_certificate(
            renewal.status,
            leaf,
            due=plan.due,
            duration=duration,
            issuer=issuer,
            root=root,
            authority=(recorded.authority if known else "") or observed.authority.name,
        )
        status = without(status, "failure")
        if obtained is not None:
            route = obtained.issued.route
            status = with_renewal(
                status,
                leaf,
                route=route,
                reason=obtained.reason,
                now=self._clock(),
                root=root,
                refused=obtained.refused,
            )
        if observed.renew_now:
            status = {**status, "renewNow": observed.renew_now}
        if observed.revoke_now:
            status = with_revoked(status, observed.revoke_now)
        leaked = observed.revoke_requested or observed.revoke_met
        if Revoke.ON_RENEW in observed.spec.revoke or leaked:
            status = retire(renewal.status, status, at_once=leaked, now=self._clock())
        uid, version = secret
        seen = seen_of(uid, version, observed.authority, renewal.generation)
        if observed.outputs is not None and observed.outputs.password_version:
            seen["password"] = observed.outputs.password_version
        if observed.outputs is not None and stores:
            seen["stores"] = sorted(stores)
        status = self._with_formats(renewal, observed, status, obtained)
        ready = Condition(
            type="Ready",
            status="True",
            reason=_good_reason(status, leaf),
            message=f"valid until {timestamp(leaf.not_after)}, to be renewed at {timestamp(plan.due)}",
        )
        status = self._with(renewal, {**status, "observedSecret": seen}, ready)
        due = await self.settle(renewal, status, observed.spec, first=first)
        if obtained is not None:
            self._hurry_along(renewal, observed.spec, leaf)
        await self._announce(renewal, recorded, leaf, obtained)
        if leaf.fingerprint != recorded.fingerprint:
            for warning in doubts(chain, asked=duration, plan=plan):
                await self._reporter.tell(about(renewal), warning.reason, warning.message, warning=True)
        return due

    def _with_formats(self, renewal: Renewal, observed: Observed, status: Status, obtained: Obtained | None) -> Status:
        """The status with the other forms of the certificate, where some are asked for or were."""
        chain = obtained.issued.chain if obtained else observed.held.chain
        key = obtained.issued.key if obtained else observed.held.key
        if observed.outputs is None or chain is None or key is None:
            return status
        spec, content = observed.spec, content_of(observed.spec, observed.outputs, chain, key, observed.trusted)
        condition = written_condition(spec, observed.outputs, content)
        keys = recorded_keys(spec, observed.outputs, content)
        status = without(status, "formats")
        if condition is None:
            return without_condition(status, "FormatsWritten")
        return self._with(renewal, {**status, **({"formats": keys} if keys else {})}, condition)

    async def settle(self, renewal: Renewal, status: Status, spec: Spec, *, first: bool = False) -> datetime | None:
        """Bring the workloads into ``status``, write it, and queue those that are owed a restart."""
        change = await self._roll_out(renewal, status, spec, first=first)
        return min(filter(None, (moment_of(status.get("renewalTime")), change)), default=None)

    async def _roll_out(self, renewal: Renewal, status: Status, spec: Spec, *, first: bool = False) -> datetime | None:
        """As `settle`; when the workloads stand differently without news."""
        now = self._clock()
        refused = self._restarts.refusals(renewal.key.namespace)
        current = current_of(status, spec, refused=refused, first=first, may_signal=self._may_signal)
        dependents = self._cache.dependents(renewal.secret)
        standings = stand(dependents, current, Recorded(renewal.status), now) if dependents else ()
        status = self._with(renewal, with_workloads(status, standings), rolled_out(standings))
        if self._servers is not None:
            status = self._with_serving(renewal, status, spec, self._servers)
        before, served = condition_of(renewal.status, "RolledOut"), condition_of(renewal.status, SERVING)
        renewal = await self.publish(renewal, status)
        self._queue(renewal, standings, current)
        after = condition_of(status, "RolledOut")
        if before.get("reason") != after["reason"]:
            if after["reason"] == Reason.ROLLED_OUT and before.get("status") == "False":
                await self._reporter.tell(about(renewal), Reason.ROLLED_OUT, after["message"])
            if after["reason"] == Reason.RESTART_FAILED:
                await self._reporter.tell(about(renewal), Reason.RESTART_FAILED, after["message"], warning=True)
        await self._tell_serving(renewal, served, condition_of(status, SERVING))
        return next_change(standings, now)

    def _hurry_along(self, renewal: Renewal, spec: Spec, leaf: Leaf) -> None:
        """Have the kubelet bring a new certificate soon to those that nobody restarts."""
        if self._hurry is not None:
            workloads = self._cache.dependents(renewal.secret)
            restart = widened(spec.restart, workloads)
            for workload in workloads:
                if workload.through is None and excuse(workload, spec.secret_name, restart) is not None:
                    self._hurry(workload, spec.secret_name, mark(leaf.fingerprint))

    def _with_serving(self, renewal: Renewal, status: Status, spec: Spec, servers: Servers) -> Status:
        """The status with what the servers show, who are asked once the rollout is complete and until all show it."""
        generation = renewal.generation
        question = question_of(status, spec.verify, uid=renewal.uid, generation=generation) if spec.verify else None
        if question is None:
            servers.spare(renewal.key)
            return without_condition(status, SERVING)
        complete = condition_of(status, "RolledOut").get("status") == "True"
        if complete and not is_answered(renewal.status, question):
            verdict = servers.want(renewal.key, question)
            if verdict is not None:
                return self._with(renewal, status, verdict)
        else:
            servers.spare(renewal.key)
        return status if is_told(renewal.status, question) else self._with(renewal, status, not_yet())

    async def _tell_serving(self, renewal: Renewal, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """One Event when it turns out not to be served, and one when that is over."""
        if before.get("status") == after.get("status"):
            return
        if after.get("status") == "False":
            await self._reporter.tell(about(renewal), Reason(after["reason"]), after["message"], warning=True)
        if after.get("status") == "True" and before.get("status") == "False":
            await self._reporter.tell(about(renewal), Reason.SERVING, after["message"])

    def _queue(self, renewal: Renewal, standings: Iterable[Standing], current: Current) -> None:
        for standing in standings:
            debt = debt_of(renewal, standing, current)
            if debt is not None:
                self._restarts.want(renewal.key.namespace, standing.ref, debt)
            elif standing.state is not State.FAILED:  # one that was refused is tried again
                self._restarts.spare(renewal.key.namespace, standing.ref, current.secret)

    async def promise_restarts(self, renewal: Renewal, spec: Spec, need: Finding) -> Renewal:
        """Before the first certificate of a Secret, note which workloads run without one.

        A kill between the Secret and the status would otherwise leave nothing that says they have to be restarted.
        """
        workloads = self._cache.dependents(renewal.secret)
        if not workloads:
            return renewal
        recorded = Recorded(renewal.status)
        if recorded.fingerprint is not None or recorded.workloads:
            return renewal
        standings = stand(workloads, current_of({}, spec, refused={}), recorded, self._clock())
        ready = Condition(type="Ready", status="False", reason=need.reason, message=need.message)
        return await self.publish(renewal, self._with(renewal, with_workloads(renewal.status, standings), ready))

    async def promise(self, renewal: Renewal, observed: Observed) -> Renewal:
        """Right before the Secret is written, note what a kill would leave nobody to know.

        Whose the other forms are: one would stay that is not wanted any more. Which request for another key this is
        about: it would be met twice.
        """
        status, outputs, held = renewal.status, observed.outputs, observed.leaf
        keys = announced_keys(observed.spec, outputs, observed.trusted) if outputs else []
        if outputs is not None and set(keys) != outputs.written:
            status = {**status, "formats": keys}
        if observed.revoke_requested and held is not None:
            status = with_revoking(status, Revoking(observed.revoke_now, held.key_fingerprint))
        return await self.publish(renewal, status) if status != renewal.status else renewal

    async def repaired(self, renewal: Renewal, finding: Finding) -> None:
        """The roots were written again. Putting them beside a certificate just found is part of taking it over."""
        if Recorded(renewal.status).fingerprint is not None:
            await self._reporter.tell(about(renewal), Reason.REPAIRED, finding.message)

    async def condemned(self, renewal: Renewal, observed: Observed) -> Renewal:
        """The certificate at hand is to be revoked, although nothing replaces it."""
        status = retire(renewal.status, {**renewal.status, "certificate": {}}, at_once=True, now=self._clock())
        status = {**status, "certificate": renewal.status["certificate"]}
        return await self.publish(renewal, with_revoked(status, observed.revoke_now))

    async def stopped(
        self, renewal: Renewal, finding: Finding, *, leaf: Leaf | None, good: bool, as_told: bool = False
    ) -> datetime | None:
        """Nothing can be done until somebody changes something.

        ``good``: the Secret holds what is wanted, still. ``as_told``: what status tells of; here and below.
        """
        now = self._clock()
        status = renewal.status
        if good or finding.reason in (Reason.AUTHORITY_UNREACHABLE, Reason.NAME_DENIED):
            failure = status.get("failure") or {}
            if (failure.get("reason"), failure.get("message")) != (finding.reason, finding.message):
                status = with_failure(status, reason=finding.reason, message=finding.message, now=now, attempt_at=None)
        else:
            status = without(status, "failure")
        change = await self._trouble(renewal, status, finding, good=good, rolls_out=as_told)
        end = leaf.not_after if leaf and leaf.not_after > now else None
        return min(filter(None, (end, change)), default=None)

    async def failed(
        self, renewal: Renewal, finding: Finding, *, good: bool, attempt_at: datetime, as_told: bool = False
    ) -> datetime | None:
        """An attempt failed; ``attempt_at``: the next one."""
        status = with_failure(
            renewal.status, reason=finding.reason, message=finding.message, now=self._clock(), attempt_at=attempt_at
        )
        return await self._trouble(renewal, status, finding, good=good, rolls_out=as_told, attempted=True)

    async def waiting(
        self, renewal: Renewal, *, leaf: Leaf | None, good: bool, as_told: bool, until: datetime
    ) -> datetime:
        """Nothing is tried before ``until``, but a certificate that ends meanwhile is told of when it does."""
        now, ready = self._clock(), condition_of(renewal.status, "Ready")
        if not good and ready.get("status") == "True":
            finding = Finding(Reason(ready["reason"]), ready["message"])
            change = await self._trouble(renewal, renewal.status, finding, good=False, rolls_out=as_told)
        else:
            change = await self._go_on(renewal, renewal.status, rolls_out=as_told)
        end = leaf.not_after if leaf and leaf.not_after > now else None
        return min(filter(None, (until, end, change)))

    async def _go_on(self, renewal: Renewal, status: Status, *, rolls_out: bool) -> datetime | None:
        """Write a status; and where the Secret still holds the certificate that it tells of, see to the workloads."""
        spec = spec_of(renewal) if rolls_out and status.get("certificate") else None
        if spec is not None:
            return await self._roll_out(renewal, status, spec)
        await self.publish(renewal, status)
        return None

    def forget(self, key: Key) -> None:
        """The CertRenewal is gone."""
        if self._servers is not None:
            self._servers.spare(key)
        self._hooks.forget(key)

    async def _announce(self, renewal: Renewal, recorded: Recorded, leaf: Leaf, obtained: Obtained | None) -> None:
        subject, until = about(renewal), f"valid until {timestamp(leaf.not_after)}"
        if obtained is not None:
            route = obtained.issued.route
            metrics.RENEWALS.labels(route=route.value, reason=obtained.reason.value).inc()
            due = moment_of(renewal.status.get("renewalTime"))
            if due is not None and obtained.reason is Reason.RENEWAL_DUE:
                metrics.LATENESS.observe((self._clock() - due).total_seconds())
            message = f"serial {leaf.serial} by {route.value} ({obtained.reason.value}), {until}"
            await self._reporter.tell(subject, Reason.ISSUED if route is Route.SIGN else Reason.RENEWED, message)
        elif leaf.fingerprint != recorded.fingerprint:
            await self._reporter.tell(subject, Reason.ADOPTED, f"serial {leaf.serial} found in the Secret, {until}")

    async def _trouble(
        self,
        renewal: Renewal,
        status: Status,
        finding: Finding,
        *,
        good: bool,
        rolls_out: bool,
        attempted: bool = False,
    ) -> datetime | None:
        """Write a status that tells of trouble, with one Event where it is new trouble."""
        ready = Condition(
            type="Ready", status="True" if good else "False", reason=finding.reason, message=finding.message
        )
        before = condition_of(renewal.status, "Ready")
        change = await self._go_on(renewal, self._with(renewal, status, ready), rolls_out=rolls_out)
        told = before.get("status"), before.get("reason"), before.get("message")
        is_news = told != (ready.status, ready.reason, ready.message[:LONGEST_MESSAGE])
        if attempted or is_news:
            metrics.FAILURES.labels(reason=finding.reason.value).inc()
        if is_news:
            await self._reporter.tell(about(renewal), finding.reason, finding.message, warning=True)
        return change

    def _with(self, renewal: Renewal, status: Status, condition: Condition) -> Status:
        return with_condition(status, condition, generation=renewal.generation, now=self._clock())

    async def publish(self, renewal: Renewal, status: Status) -> Renewal:
        """Write what changed of a status, and remember it; then see to its hooks."""
        before = condition_of(renewal.status, "HooksDelivered")
        status, condition = self._hooks.tell(renewal, status)
        if condition is not None:
            status = self._with(renewal, status, condition)
        wanted = {**status, "secretName": renewal.secret.name}
        for _ in range(2):  # the first answer may show what the watch has not: a write of ours whose answer got lost
            patch = difference(renewal.status, wanted)
            if not patch:
                break
            self._require()
            try:
                body = await self._store.write_status(renewal.key.namespace, renewal.key.name, renewal.uid, patch)
            except NotFound:
                return renewal
            answer = parse_renewal(body)
            self._cache.answer_renewal(answer)
            # What others changed meanwhile is for the next look: this one ends with the wish that it began with.
            same = answer.wish == renewal.wish
            renewal = answer if same else replace(renewal, status=answer.status, version=answer.version)
        self._hooks.want(renewal)
        if condition is not None:
            await self._tell_of_hooks(renewal, before, condition)
        return renewal

    async def _tell_of_hooks(self, renewal: Renewal, before: Mapping[str, str], after: Condition) -> None:
        """One Event where the condition changed; that nothing was ever owed is no news."""
        if (before.get("status"), before.get("reason")) == (after.status, after.reason):
            return
        if before or after.status == "False":
            warning = after.reason in (Reason.HOOK_FAILING, Reason.HOOK_DENIED)
            await self._reporter.tell(about(renewal), after.reason, after.message, warning=warning)


def seen_of(uid: str, version: str, view: AuthorityView, generation: int) -> dict[str, Any]:
    """What `status.observedSecret` says of a Secret that was found good for a spec, under an authority's roots."""
    return {"uid": uid, "resourceVersion": version, "roots": roots_digest(view), "generation": generation}


def roots_digest(view: AuthorityView) -> str:
    """A short name for a set of roots."""
    return _digest(view.bundle)


@functools.lru_cache(maxsize=64)
def _digest(bundle: bytes) -> str:
    return hashlib.sha256(bundle).hexdigest()[:16]


def _root(leaf: Leaf, found: x509.Certificate | None, recorded: Recorded) -> str | None:
    """The fingerprint of the root that a leaf leads to; what was recorded, where the roots are not known now."""
    if found is not None:
        return fingerprint(found)
    return recorded.root if recorded.fingerprint == leaf.fingerprint else None


def _good_reason(status: Status, leaf: Leaf) -> Reason:
    """Where the certificate at hand came from: from us, by one of two ways, or from somebody else."""
    history = status.get("history") or ()
    if not history or history[0]["fingerprint"] != leaf.fingerprint:
        return Reason.ADOPTED
    return Reason.ISSUED if history[0]["route"] == Route.SIGN else Reason.RENEWED
