"""Who is restarted next: a queue with a budget, rebuilt from objects after a kill.

What is owed is worked out again when a workload's turn comes, from the mark on its pod template and from the status of
every certificate that it uses: several new certificates are one restart, and the same certificate is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import timedelta

from aiolimiter import AsyncLimiter

from certrenewal import metrics
from certrenewal.controller.cache import Cache, Key
from certrenewal.controller.reporter import Reporter, about_workload
from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import State, Workload, mark, mark_key, parse_workload
from certrenewal.domain.spec import InvalidSpec, WorkloadRef, parse_spec
from certrenewal.domain.standing import stand
from certrenewal.domain.status import read_recorded
from certrenewal.kube.errors import ClusterError, NotFound, Rejected
from certrenewal.kube.store import Store

log = logging.getLogger(__name__)

RETRY = 5.0

_Target = tuple[str, WorkloadRef]


class RestartQueue:
    """Workloads that wait for their restart, the nearest expiry first."""

    def __init__(
        self,
        *,
        cache: Cache,
        store: Store,
        reporter: Reporter,
        leads: Callable[[], bool],
        per_minute: int,
        cooldown: timedelta,
        poke: Callable[[Key], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._store = store
        self._reporter = reporter
        self._leads = leads
        self._budget = AsyncLimiter(per_minute, 60)
        self._cooldown = cooldown.total_seconds()
        self._poke = poke
        self._clock = clock
        self._wanted: dict[_Target, float] = {}
        self._not_before: dict[_Target, float] = {}
        self._news = asyncio.Event()

    def want(self, namespace: str, ref: WorkloadRef, urgency: float) -> None:
        """Restart this workload when its turn comes."""
        self._wanted[namespace, ref] = urgency
        metrics.RESTART_QUEUE.set(len(self._wanted))
        self._news.set()

    async def run(self) -> None:
        """Restart one workload after the other, for ever."""
        while True:
            target = await self._next()
            if not self._leads():
                self._wanted.clear()  # the next leader, or our next look, finds them again
                continue
            try:
                await self._restart(*target)
            except Rejected as failure:
                await self._report_rejected(target, failure)
            except ClusterError as failure:
                log.warning(
                    "restart not written",
                    extra={"namespace": target[0], "workload": str(target[1]), "error": str(failure)},
                )
                self._postpone(target, RETRY)

    async def _next(self) -> _Target:
        while True:
            now = self._clock()
            ready = [t for t in self._wanted if self._not_before.get(t, 0.0) <= now]
            if ready:
                target = min(ready, key=lambda t: (self._wanted[t], t))
                self._wanted.pop(target)
                metrics.RESTART_QUEUE.set(len(self._wanted))
                return target
            self._news.clear()
            waits = [self._not_before[t] - now for t in self._wanted]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(min(waits), 0.01) if waits else None):
                    await self._news.wait()

    async def _restart(self, namespace: str, ref: WorkloadRef) -> None:
        workload = self._cache.workload(namespace, ref)
        owed = self._owed(workload) if workload else {}
        if workload is None or not owed:
            return
        async with self._budget:
            if not self._leads():
                return
            try:
                body = await self._store.mark_template(namespace, ref, workload.uid, owed)
            except NotFound:
                return
        self._not_before[namespace, ref] = self._clock() + self._cooldown
        metrics.RESTARTS.labels(kind=ref.kind).inc()
        for key in self._cache.see_workload(parse_workload(ref.kind, {**body, "kind": ref.kind})):
            self._poke(key)
        secrets = ", ".join(sorted(name for name in workload.secrets if mark_key(name) in owed))
        await self._reporter.tell(
            about_workload(namespace, ref, workload.uid), Reason.RESTARTED, f"for the new certificate in {secrets}"
        )

    def _owed(self, workload: Workload) -> dict[str, str]:
        """The marks of all certificates that this workload does not run yet."""
        marks: dict[str, str] = {}
        for name in workload.secrets:
            for key in self._cache.claims(Key(workload.namespace, name)):
                renewal = self._cache.renewals[key]
                recorded = read_recorded(renewal.status)
                try:
                    spec = parse_spec(key.name, renewal.spec)
                except InvalidSpec:
                    continue
                (standing,) = stand(
                    [workload],
                    secret=name,
                    fingerprint=recorded.fingerprint,
                    restart=spec.restart,
                    recorded=recorded,
                )
                if standing.state is State.PENDING and recorded.fingerprint:
                    marks[mark_key(name)] = mark(recorded.fingerprint)
        return marks

    async def _report_rejected(self, target: _Target, failure: Rejected) -> None:
        namespace, ref = target
        if workload := self._cache.workload(namespace, ref):
            subject = about_workload(namespace, ref, workload.uid)
            await self._reporter.tell(subject, Reason.RESTART_FAILED, str(failure), warning=True)
        self._postpone(target, 60.0)

    def _postpone(self, target: _Target, seconds: float) -> None:
        self._not_before[target] = self._clock() + seconds
        self.want(*target, urgency=0.0)
