"""How do restarts fare without a cluster: certificates and workloads in a cache, and a store that marks templates?

The queue and all that it asks are the operator's own. A look is what `Teller.settle` does, without the writing; it comes
where the operator would look too: after news of a workload, and where the queue asks for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

from certrenewal.controller.cache import Cache, Key, Renewal
from certrenewal.controller.owed import current_of, debt_of
from certrenewal.controller.reporter import Reporter
from certrenewal.controller.restarts import Limits, RestartQueue
from certrenewal.domain import annotation
from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import State, Workload, parse_workload
from certrenewal.domain.routes import Route
from certrenewal.domain.spec import WorkloadRef, parse_spec
from certrenewal.domain.standing import rolled_out, stand
from certrenewal.domain.status import (
    Condition,
    Recorded,
    Status,
    with_certificate,
    with_condition,
    with_renewal,
    with_workloads,
)
from certrenewal.kube.errors import NotFound
from certrenewal.kube.store import Store, Subject
from tests.unit.builders import DAY, NOON, a_leaf

NAMESPACE = "shop"
READY = Condition(type="Ready", status="True", reason=Reason.RENEWED, message="")


async def settled() -> None:
    """Let every task go on until it waits for news or time."""
    for _ in range(30):
        await asyncio.sleep(0)


class Clock:
    """A clock that stands until somebody sets it."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


class Fleet:
    """Certificates and workloads of one namespace, unless told otherwise, and the queue between them."""

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.cache = Cache()
        self.leads = True
        self.restarted: list[str] = []  # the workloads, in the order of their restarts
        self.marks: list[dict[str, str]] = []  # what was written at each of them
        self.told: list[tuple[str, Reason, str]] = []
        self.failures: dict[str, Exception] = {}  # what the API server says to a restart
        self.gate: asyncio.Event | None = None  # where it takes its time for an answer
        self.passes = 0  # how often the queue looked for the next one
        self._bodies: dict[tuple[str, WorkloadRef], dict[str, Any]] = {}
        self._pokes: dict[Key, None] = {}
        self._numbers = itertools.count(1)
        limits = {"per_minute": 0, "cooldown": timedelta(0), "together": 0.1, **limits}
        self.queue = RestartQueue(
            cache=self.cache,
            store=cast("Store", self),
            reporter=cast("Reporter", self),
            leads=self._asked_who_leads,
            limits=Limits(**limits),
            poke=self._pokes.setdefault,
            clock=self.clock,
        )
        measure = self.queue._measure

        def counted() -> None:
            self.passes += 1
            measure()

        self.queue._measure = counted  # type: ignore[method-assign]

    def _asked_who_leads(self) -> bool:
        return self.leads

    # -- certificates ----------------------------------------------------------------------------------------------

    def certificate(
        self,
        name: str = "web-tls",
        *,
        life: timedelta = DAY,
        due: timedelta | None = None,
        namespace: str = NAMESPACE,
        **spec: Any,
    ) -> Key:
        """A certificate that was had just now, and ran in nobody before."""
        key = Key(namespace, name)
        self.cache.put_renewal(
            Renewal(
                key=key,
                uid=name,
                version=1,
                generation=1,
                created="",
                owner_uid=None,
                spec={"secretName": name, "restart": "Auto", **spec},
                status={},
                renew_now="",
            )
        )
        self._obtain(key, life, due, Reason.MISSING)
        return key

    def renew(
        self,
        name: str = "web-tls",
        *,
        life: timedelta = DAY,
        due: timedelta | None = None,
        by: Reason = Reason.RENEWAL_DUE,
        namespace: str = NAMESPACE,
    ) -> None:
        """Another certificate, and the look that belongs to it."""
        self._obtain(Key(namespace, name), life, due, by)
        self.look(Key(namespace, name))

    def _obtain(self, key: Key, life: timedelta, due: timedelta | None, by: Reason) -> None:
        now = self.clock()
        serial = str(next(self._numbers))
        leaf = a_leaf(
            serial=serial,
            fingerprint=hashlib.sha256(serial.encode()).hexdigest(),
            not_before=now,
            not_after=now + life,
        )
        status = with_certificate(
            self.status(key), leaf, due=now + (life * 2 / 3 if due is None else due), duration=None
        )
        status = with_renewal(status, leaf, route=Route.SIGN, reason=by, now=now)
        self.write(key, with_condition(status, READY, generation=1, now=now))

    def status(self, key: Key) -> Status:
        """What is written of it."""
        return self.cache.renewals[key].status

    def write(self, key: Key, status: Status) -> None:
        """Have another status."""
        self.cache.put_renewal(replace(self.cache.renewals[key], status=status))

    def mark(self, name: str) -> str:
        """The mark of the certificate that the Secret holds."""
        return str(self.status(Key(NAMESPACE, name))["certificate"]["fingerprint"])[:16]

    def look(self, key: Key) -> None:
        """Find out how its workloads stand, and queue those that are owed a restart."""
        renewal = self.cache.renewals[key]
        spec, now = parse_spec(key.name, renewal.spec), self.clock()
        refused = self.queue.refusals(key.namespace)
        current = current_of(renewal.status, spec, refused=refused, may_signal=self.queue._reloads is not None)
        standings = stand(self.cache.dependents(renewal.secret), current, Recorded(renewal.status), now)
        status = with_workloads(renewal.status, standings)
        self.write(key, with_condition(status, rolled_out(standings), generation=1, now=now))
        for standing in standings:
            if debt := debt_of(self.cache.renewals[key], standing, current):
                self.queue.want(key.namespace, standing.ref, debt)
            elif standing.state is not State.FAILED:
                self.queue.spare(key.namespace, standing.ref, current.secret)

    def states(self, name: str = "web-tls") -> dict[str, tuple[str, str]]:
        """State and message of each workload, as status tells them."""
        entries = self.status(Key(NAMESPACE, name)).get("workloads") or ()
        return {entry["name"]: (entry["state"], entry.get("message", "")) for entry in entries}

    # -- workloads -------------------------------------------------------------------------------------------------

    def deploy(
        self,
        name: str,
        *secrets: str,
        kind: str = "Deployment",
        namespace: str = NAMESPACE,
        wish: Mapping[str, str] | None = None,
        uid: str = "",
    ) -> WorkloadRef:
        """A healthy workload that uses these Secrets, web-tls unless told otherwise."""
        ref = WorkloadRef(kind, name)
        volumes = [{"name": s, "secret": {"secretName": s}} for s in secrets or ("web-tls",)]
        self._bodies[namespace, ref] = {
            "kind": kind,
            "metadata": {
                "namespace": namespace,
                "name": name,
                "uid": uid or name,
                "generation": 1,
                "annotations": {annotation.PREFIX + key: value for key, value in (wish or {}).items()},
            },
            "spec": {"replicas": 1, "template": {"metadata": {}, "spec": {"volumes": volumes}}},
            "status": {},
        }
        self.roll(name, kind=kind, namespace=namespace)
        return ref

    def roll(self, name: str, *, kind: str = "Deployment", namespace: str = NAMESPACE) -> None:
        """Its rollout is complete."""
        body = self._bodies[namespace, WorkloadRef(kind, name)]
        counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), 1)
        self._change(body, status={"observedGeneration": body["metadata"]["generation"], **counts})

    def fail(self, name: str) -> None:
        """Its rollout does not progress."""
        body = self._bodies[NAMESPACE, WorkloadRef("Deployment", name)]
        condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "stuck"}
        self._change(body, status={"observedGeneration": body["metadata"]["generation"], "conditions": [condition]})

    def annotate(self, name: str, **wish: str) -> None:
        """It has other annotations."""
        body = self._bodies[NAMESPACE, WorkloadRef("Deployment", name)]
        words = {annotation.PREFIX + key.replace("_", "-"): value for key, value in wish.items()}
        self._change(body, metadata={**body["metadata"], "annotations": words})

    def remove(self, name: str) -> None:
        """It is gone."""
        ref = WorkloadRef("Deployment", name)
        del self._bodies[NAMESPACE, ref]
        self.queue.lose(NAMESPACE, ref)
        for key in self.cache.lose_workload(NAMESPACE, ref):
            self.look(key)

    def _change(self, body: dict[str, Any], **parts: Any) -> None:
        body.update(parts)
        for key in self.cache.see_workload(parse_workload(body["kind"], body)):
            self.look(key)

    # -- as the store and the reporter -----------------------------------------------------------------------------

    async def mark_template(self, workload: Workload, marks: Mapping[str, str]) -> dict[str, Any]:
        """What `Store` does, or fails to do."""
        if self.gate is not None:
            await self.gate.wait()
        namespace, ref = workload.namespace, workload.ref
        if ref.name in self.failures:
            raise self.failures[ref.name]
        body = self._bodies.get((namespace, ref))
        if body is None or body["metadata"]["uid"] != workload.uid:
            raise NotFound(ref.name)
        template = body["spec"]["template"]["metadata"]
        known = template.get("annotations") or {}
        if not marks.items() <= known.items():
            metadata = {**body["metadata"], "generation": body["metadata"]["generation"] + 1}
            spec = {
                **body["spec"],
                "template": {**body["spec"]["template"], "metadata": {"annotations": {**known, **marks}}},
            }
            body = self._bodies[namespace, ref] = {**body, "metadata": metadata, "spec": spec}
        self.restarted.append(ref.name)
        self.marks.append(dict(marks))
        return body

    async def tell(self, subject: Subject, reason: Reason, message: str, *, warning: bool = False) -> None:
        """What `Reporter` does."""
        self.told.append((subject.name, reason, message))

    def warnings(self, reason: Reason) -> list[str]:
        """What was told for this reason."""
        return [message for _, told, message in self.told if told is reason]

    # -- time ------------------------------------------------------------------------------------------------------

    async def pause(self, length: timedelta = timedelta(0)) -> list[str]:
        """Let time pass; the workloads that were restarted meanwhile, or since the last pause."""
        self.clock.now += length
        before = self.passes
        while True:
            self.queue._news.set()
            await settled()
            if not self._pokes:
                break
            for key in [*self._pokes]:
                del self._pokes[key]
                if self.leads:
                    self.look(key)
        assert self.passes - before < 200, "the queue found no rest"
        restarted, self.restarted = self.restarted, []
        return restarted
