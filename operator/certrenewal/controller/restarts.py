"""Who is restarted next: a queue with a budget, rebuilt from objects after a kill.

What is owed is worked out again when a workload's turn comes, from the mark on its pod template and from the status of
every certificate that it uses: several new certificates are one restart, and the same certificate is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from certrenewal import metrics
from certrenewal.controller.cache import Cache, Key, Renewal
from certrenewal.controller.owed import Debt, Owed, owed
from certrenewal.controller.reloads import Abandoned, Reloads
from certrenewal.controller.reporter import Reporter, about_workload
from certrenewal.controller.siblings import about_to_follow, of_workload, restarted_at, restarting
from certrenewal.domain.budget import Bucket
from certrenewal.domain.durations import format_duration
from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import Workload, parse_workload
from certrenewal.domain.spec import WorkloadRef
from certrenewal.domain.standing import NO_SIGNALS
from certrenewal.domain.status import timestamp
from certrenewal.kube.client import Object
from certrenewal.kube.errors import ClusterError, NotFound, Rejected
from certrenewal.kube.store import Store

log = logging.getLogger(__name__)

AT_ONCE = 8  # patches of pod templates under way at the same time
RETRY = timedelta(seconds=5)
REFUSED_RETRY = timedelta(minutes=1)
# Who changes one Secret of a workload by hand or by script changes its others within this time.
QUIET = timedelta(seconds=2.5)
LONGEST_WAIT = timedelta(seconds=30)  # for certificates that are about to follow
GLANCE = timedelta(seconds=0.25)  # between two looks whether they did
WARN_AGAIN = timedelta(hours=1)

_Target = tuple[str, WorkloadRef]
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How often workloads may be restarted; 0 a minute is as often as it takes."""

    per_minute: int = 60
    per_minute_in_namespace: int = 0
    cooldown: timedelta = timedelta(0)
    together: float = 0.1  # the share of its life within which a certificate is renewed with one of the same workload


@dataclass(slots=True)
class _Waiting:
    """One workload in the queue."""

    since: datetime
    changed: datetime  # when a certificate came that it does not run
    owed: Owed
    cooled_at: datetime | None = None


class RestartQueue:
    """Workloads that wait for their restart, the nearest expiry of what they run first."""

    def __init__(
        self,
        *,
        cache: Cache,
        store: Store,
        reporter: Reporter,
        leads: Callable[[], bool],
        limits: Limits,
        poke: Callable[[Key], None],
        clock: Callable[[], datetime],
        reloads: Reloads | None = None,
    ) -> None:
        self._cache = cache
        self._store = store
        self._reporter = reporter
        self._leads = leads
        self._limits = limits
        self._poke = poke
        self._clock = clock
        self._reloads = reloads
        self._cluster = Bucket(limits.per_minute)
        self._namespaces: defaultdict[str, Bucket] = defaultdict(lambda: Bucket(limits.per_minute_in_namespace))
        self._waiting: dict[_Target, _Waiting] = {}
        self._under_way: set[_Target] = set()
        self._retry_at: dict[_Target, datetime] = {}
        self._last: dict[_Target, datetime] = {}
        self._warned: dict[_Target, datetime] = {}
        self._refusals: dict[_Target, str] = {}
        self._news = asyncio.Event()

    def want(self, namespace: str, ref: WorkloadRef, debt: Debt) -> None:
        """Restart this workload when its turn comes, if it still runs an older certificate then."""
        target, now = (namespace, ref), self._clock()
        known = self._waiting.setdefault(target, _Waiting(now, now, Owed()))
        marks = known.owed.marks
        known.owed = known.owed.with_debt(debt)
        if known.owed.marks != marks:
            known.changed = now
            self._wake_siblings(target)
        self._news.set()

    def spare(self, namespace: str, ref: WorkloadRef, secret: str) -> None:
        """This workload is owed no restart for that Secret."""
        known = self._waiting.get((namespace, ref))
        if known is not None:
            known.owed = known.owed.without(secret)
            if not known.owed:
                self._drop((namespace, ref))

    def lose(self, namespace: str, ref: WorkloadRef) -> None:
        """A workload is gone, and with it when it was restarted and what was said of it."""
        for known in (self._last, self._warned):
            known.pop((namespace, ref), None)

    def refusals(self, namespace: str) -> Mapping[WorkloadRef, str]:
        """The workloads of a namespace that the API server does not let us restart, with its words."""
        return {ref: words for (where, ref), words in self._refusals.items() if where == namespace}

    async def run(self) -> None:
        """Restart workloads in turn, a few at the same time, for ever."""
        slots = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as restarts:
            while True:
                await slots.acquire()
                target = await self._next()
                if not self._leads():
                    self._hand_over()
                elif (job := self._take(target)) is not None:
                    task = restarts.create_task(self._attempt(target, *job))
                    if job[0].reload is None:  # else it waits for a kubelet, and must not hold up restarts
                        task.add_done_callback(lambda _: slots.release())
                        continue
                slots.release()

    async def _attempt(self, target: _Target, workload: Workload, waiting: _Waiting) -> None:
        namespace, ref = target
        try:
            await self._restart(target, workload, waiting)
        except Abandoned:
            self._give_back(target, waiting)
        except Rejected as failure:
            self._give_back(target, waiting)
            await self._refused(target, failure)
        except ClusterError as failure:
            self._give_back(target, waiting)
            log.warning(
                "restart not written", extra={"namespace": namespace, "workload": str(ref), "error": str(failure)}
            )
            self._retry_at[target] = self._clock() + RETRY
        finally:
            self._under_way.discard(target)
            self._news.set()

    async def _next(self) -> _Target:
        """Wait for the most urgent workload that may be restarted."""
        while True:
            self._news.clear()
            self._measure()
            now = self._clock()
            moments: list[datetime] = []
            for target in sorted(self._waiting.keys() - self._under_way, key=self._urgency):
                moment = self._turn(target, now)
                if moment <= now:
                    return target
                moments.append(moment)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout((min(moments) - now).total_seconds() if moments else None):
                    await self._news.wait()

    def _urgency(self, target: _Target) -> tuple[datetime, _Target]:
        return self._waiting[target].owed.ends or _LONG_AGO, target

    def _turn(self, target: _Target, now: datetime) -> datetime:
        """When a workload may be restarted, as far as that is known."""
        waiting = self._waiting[target]
        latest = waiting.owed.must_by or _NEVER
        if latest <= now:
            return max(now, self._retry_at.get(target, now))
        if waiting.owed.held:
            return latest
        waits = [
            self._cluster.free_at(now),
            self._namespaces[target[0]].free_at(now),
            waiting.owed.opening,
            self._cooled_at(target),
            self._retry_at.get(target),
        ]
        earliest = max((wait for wait in waits if wait), default=now)
        if earliest <= now:  # siblings take longer to look at, and only count in the end
            earliest = self._quiet_at(target, waiting) or now
        if earliest <= now and self._is_waited_for(target, waiting, now):
            earliest = now + GLANCE
        return min(earliest, latest)

    def _quiet_at(self, target: _Target, waiting: _Waiting) -> datetime | None:
        """When nobody is expected to change another Secret of this workload any more."""
        if not waiting.owed.by_hand or len(self._siblings(target)) < 2:
            return None
        return min(waiting.changed + QUIET, waiting.since + LONGEST_WAIT)

    def _is_waited_for(self, target: _Target, waiting: _Waiting, now: datetime) -> bool:
        """Whether another certificate of this workload is about to follow."""
        if now >= waiting.since + LONGEST_WAIT:
            return False
        secrets = {debt.secret for debt in waiting.owed.debts}
        return any(
            about_to_follow(self._cache, renewal, together=self._limits.together, now=now)
            for renewal in self._siblings(target)
            if renewal.secret.name not in secrets
        )

    def _certificates(self, target: _Target) -> list[Renewal]:
        workload = self._cache.workload(*target)
        return list(of_workload(self._cache, workload)) if workload else []

    def _siblings(self, target: _Target) -> list[Renewal]:
        """The certificates that it is restarted for."""
        workload = self._cache.workload(*target)
        return list(restarting(self._cache, workload)) if workload else []

    def _wake_siblings(self, target: _Target) -> None:
        """Certificates that are nearly due are renewed along, so that one restart does for all."""
        secrets = {debt.secret for debt in self._waiting[target].owed.debts}
        for renewal in self._certificates(target):
            if renewal.secret.name not in secrets:
                self._poke(renewal.key)

    def _take(self, target: _Target) -> tuple[Workload, _Waiting] | None:
        """Take a workload and a share of the budget, where its turn has come by what objects say now."""
        waiting, workload, now = self._waiting[target], self._cache.workload(*target), self._clock()
        others = {ref: words for ref, words in self.refusals(target[0]).items() if ref != target[1]}
        waiting.owed = self._owed(workload, others, now) if workload else Owed()
        if workload is None or not waiting.owed:
            self._drop(target)
            return None
        if last := restarted_at(self._cache, workload):  # by the leader before us, or for another certificate
            self._last[target] = max(last, self._last.get(target, last))
        if self._turn(target, now) > now:
            return None
        waiting.cooled_at = self._cooled_at(target)
        for bucket in (self._cluster, self._namespaces[workload.namespace]):
            bucket.take(now)
        del self._waiting[target]
        self._under_way.add(target)
        return workload, waiting

    def _owed(self, workload: Workload, refused: Mapping[WorkloadRef, str], now: datetime) -> Owed:
        return owed(self._cache, workload, refused=refused, may_signal=self._reloads is not None, now=now)

    def _give_back(self, target: _Target, waiting: _Waiting) -> None:
        """It was not restarted: it waits again, and its share of the budget is there for others."""
        self._waiting.setdefault(target, waiting)
        for bucket in (self._cluster, self._namespaces[target[0]]):
            bucket.give_back()

    def _drop(self, target: _Target) -> None:
        """A workload is owed nothing any more: whether we may restart it is an open question again."""
        self._waiting.pop(target, None)
        self._retry_at.pop(target, None)
        if self._refusals.pop(target, None) is not None:
            self._wake_all(target)
        self._news.set()

    def _hand_over(self) -> None:
        """Another replica leads, or none: whoever does next finds out what is owed, and if it is us by new looks."""
        targets = [*self._waiting]
        self._waiting.clear()
        self._refusals.clear()
        for target in targets:
            self._wake_all(target)

    def _wake_all(self, target: _Target) -> None:
        for renewal in self._certificates(target):
            self._poke(renewal.key)

    async def _restart(self, target: _Target, workload: Workload, waiting: _Waiting) -> None:
        try:
            if workload.reload is None:
                body = await self._store.mark_template(workload, waiting.owed.marks)
            else:
                body = await self._reload(target, workload, waiting)
        except NotFound:
            self._drop(target)
            return
        now = self._last[target] = self._clock()
        self._refusals.pop(target, None)
        self._retry_at.pop(target, None)
        (metrics.RESTARTS if workload.reload is None else metrics.RELOADS).labels(kind=workload.ref.kind).inc()
        known = self._cache.workload(*target)
        if known is not None and known.uid == workload.uid:  # else the watch was faster, and it is gone
            self._cache.see_workload(
                parse_workload(workload.ref.kind, body, workload.resource, as_reloader=workload.reloader is not None)
            )
        self._wake_all(target)  # even if the watch was faster than the answer: looks in between may have found more
        await self._tell(workload, waiting, now)

    async def _reload(self, target: _Target, workload: Workload, waiting: _Waiting) -> Object:
        """Have its pods take the new certificates in, then mark the workload: never its template, which restarts."""
        marks, debts = waiting.owed.marks, waiting.owed.debts
        if self._reloads is None:
            raise Rejected(NO_SIGNALS)

        def still() -> bool:
            wanted = self._waiting.get(target, waiting).owed.marks
            now = self._cache.workload(*target)
            same = now is not None and (now.uid, now.reload) == (workload.uid, workload.reload)
            return same and all(wanted.get(key, mark) == mark for key, mark in marks.items())

        await self._reloads.bring(workload, debts, still)
        return await self._store.mark_workload(workload, marks)

    async def _tell(self, workload: Workload, waiting: _Waiting, now: datetime) -> None:
        subject = about_workload(workload)
        secrets = ", ".join(sorted(debt.secret for debt in waiting.owed.debts))
        reason = Reason.RESTARTED if workload.reload is None else Reason.RELOADED
        await self._reporter.tell(subject, reason, f"for the new certificate in {secrets}")
        opening, ends = waiting.owed.opening, [at for debt in waiting.owed.debts if (at := debt.standing.runs.until)]
        if opening is not None and opening > now and ends:
            message = (
                f"restarted outside its window, which opens at {timestamp(opening)}: a certificate that it ran ends at "
                f"{timestamp(min(ends))}"
            )
            await self._reporter.tell(subject, Reason.WINDOW_MISSED, message, warning=True)
        target = workload.namespace, workload.ref
        delayed = waiting.cooled_at is not None and waiting.cooled_at > waiting.since
        if delayed and now >= self._warned.get(target, _LONG_AGO) + WARN_AGAIN:
            self._warned[target] = now
            message = (
                f"certificates in {secrets} change more often than restarts.cooldown "
                f"({format_duration(self._limits.cooldown)}) lets this workload restart"
            )
            await self._reporter.tell(subject, Reason.RESTART_DELAYED, message, warning=True)

    def _cooled_at(self, target: _Target) -> datetime | None:
        """When the workload may be restarted again after its last restart."""
        debts = self._waiting[target].owed.debts
        last = max(filter(None, (self._last.get(target), *(debt.standing.runs.since for debt in debts))), default=None)
        return last + self._limits.cooldown if last and self._limits.cooldown else None

    async def _refused(self, target: _Target, failure: Rejected) -> None:
        """The API server does not let us: told in status, and tried again in a while."""
        namespace, ref = target
        self._retry_at[target] = self._clock() + REFUSED_RETRY
        before, words = self._refusals.get(target, ""), str(failure)
        self._refusals[target] = words
        if before == words or (workload := self._cache.workload(namespace, ref)) is None:
            return
        self._wake_all(target)
        summary = words.partition("\n")[0]  # what a command of the user's printed is for status alone
        if before.partition("\n")[0] != summary:
            subject = about_workload(workload)
            await self._reporter.tell(subject, Reason.RESTART_FAILED, summary, warning=True)

    def _measure(self) -> None:
        metrics.RESTART_QUEUE.set(len(self._waiting))
        ends = [ends.timestamp() for waiting in self._waiting.values() if (ends := waiting.owed.ends)]
        metrics.RESTART_DEADLINE.set(min(ends, default=0))
