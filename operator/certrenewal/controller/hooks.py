"""Which hook is delivered next? A queue beside the looks, rebuilt from status after a kill.

Nothing here writes a status: what became of an attempt is kept until the next look tells of it, so that a certificate
has one writer. A kill in between repeats the delivery, with the same idempotency key. No renewal waits for a hook.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
import itertools
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus

from certrenewal import metrics
from certrenewal.controller.cache import Cache, Key, Renewal, spec_of, version_of
from certrenewal.domain.authority import AuthorityView
from certrenewal.domain.certificate import dump_key, key_fits
from certrenewal.domain.deliveries import (
    Delivery,
    State,
    answered,
    due,
    hooks_condition,
    own_mark,
    read_deliveries,
    with_deliveries,
    with_news,
    without_deliveries,
)
from certrenewal.domain.hooks import Hook, InvalidHook, KeyRef, parse_hooks
from certrenewal.domain.observed import Held, read_held
from certrenewal.domain.request import Facts, header_value, render
from certrenewal.domain.spec import Spec
from certrenewal.domain.status import Condition, Status, timestamp
from certrenewal.kube.errors import ClusterError
from certrenewal.kube.lease import NotLeading
from certrenewal.kube.store import Secret, Store
from certrenewal.outbound import Denied, Outbound, Trust, Undelivered

log = logging.getLogger(__name__)

AT_ONCE = 32
AT_ONCE_IN_NAMESPACE = 4  # a namespace whose hooks hang leaves room for the others
CLUSTER_RETRY = timedelta(seconds=5)
DENIED_RETRY = timedelta(minutes=5)  # a name may resolve to another address by then
NEVER = datetime.max.replace(tzinfo=UTC)  # before there is news
GLANCE = 1.0  # seconds between two looks whether this replica leads


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One hook that one certificate owes."""

    key: Key
    hook: str
    mark: str
    generation: int

    @property
    def place(self) -> tuple[Key, str]:
        """What only one attempt at a time is for: a receiver must not get an older certificate after a newer."""
        return self.key, self.hook


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of an attempt, in words that repeat nothing of what was sent."""

    state: State
    message: str
    secrets: str = ""  # which Secrets its headers were made of


class _Superseded(Exception):
    """The Secret holds another certificate by now."""


class _Unchanged(Exception):
    """The receiver has refused this very request."""


class Hooks:
    """Delivers hooks, a few at the same time."""

    def __init__(
        self,
        *,
        cache: Cache,
        store: Store,
        outbound: Outbound,
        view: Callable[[str], AuthorityView | None],
        leads: Callable[[], bool],
        require: Callable[[], None],
        poke: Callable[[Key], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._cache = cache
        self._store = store
        self._outbound = outbound
        self._view = view
        self._leads = leads
        self._require = require
        self._poke = poke
        self._clock = clock
        self._waiting: defaultdict[Key, dict[_Job, datetime]] = defaultdict(dict)
        self._queue: list[tuple[datetime, int, _Job]] = []  # a heap; an item counts while _waiting says the same
        self._parked: defaultdict[str, deque[_Job]] = defaultdict(deque)  # due, by namespaces that are busy
        self._tickets = itertools.count()
        self._not_before: defaultdict[Key, dict[_Job, datetime]] = defaultdict(dict)
        self._refused: defaultdict[Key, set[_Job]] = defaultdict(set)  # by the Secrets that may be corrected
        self._under_way: dict[tuple[Key, str], tuple[_Job, asyncio.Task[None]]] = {}
        self._outcomes: defaultdict[Key, dict[str, Delivery]] = defaultdict(dict)
        self._closed = False
        self._news = asyncio.Event()
        self._told = asyncio.Event()

    # -- what looks tell and ask -------------------------------------------------------------------------------

    def tell(self, renewal: Renewal, status: Status) -> tuple[Status, Condition | None]:
        """The status with what became of its hooks, and the condition HooksDelivered where it has one."""
        hooks = _hooks(renewal)
        if hooks is None or "certificate" not in status:
            return status, None
        if not hooks:
            return without_deliveries(status), None
        deliveries = self._deliveries(renewal.key, status)
        status = with_deliveries(status, hooks, deliveries)
        return status, hooks_condition(hooks, status, deliveries)

    def want(self, renewal: Renewal) -> None:
        """Deliver what this CertRenewal owes by its status, which was just written or was right as it is."""
        if not renewal.spec.get("hooks") and not self._has_any(renewal.key):
            return
        deliveries = self._deliveries(renewal.key, renewal.status)
        self._drop_told(renewal)
        now, mark, denied = self._clock(), own_mark(renewal.status), self._not_before.get(renewal.key, {})
        jobs: dict[_Job, datetime] = {}
        for hook in _hooks(renewal) or ():
            at = due(hook, renewal.status, deliveries.get(hook.name), generation=renewal.generation, now=now)
            if at is not None and mark is not None:
                job = _Job(key=renewal.key, hook=hook.name, mark=mark, generation=renewal.generation)
                jobs[job] = max(at, denied.get(job, at))
        self._replace(renewal.key, jobs)

    def _has_any(self, key: Key) -> bool:
        """Whether there is anything left of hooks that were asked for."""
        if key in self._waiting or key in self._outcomes or key in self._not_before:
            return True
        return any(owner == key for owner, _ in self._under_way)

    def see_secret(self, key: Key) -> None:
        """News of a Secret: what was refused because of it may be taken now."""
        for job in self._refused.pop(key, ()):
            self._not_before.get(job.key, {}).pop(job, None)
            self._poke(job.key)

    def forget(self, key: Key) -> None:
        """The CertRenewal is gone."""
        self._outcomes.pop(key, None)
        self._told.set()
        self._replace(key, {})

    def _deliveries(self, key: Key, status: Status) -> dict[str, Delivery]:
        return with_news(read_deliveries(status), self._outcomes.get(key, {}))

    def _drop_told(self, renewal: Renewal) -> None:
        """Forget what status tells, and what no longer counts."""
        recorded, mark = read_deliveries(renewal.status), own_mark(renewal.status)
        untold = {
            name: outcome
            for name, outcome in self._outcomes.pop(renewal.key, {}).items()
            if outcome.mark == mark and with_news(recorded, {name: outcome})[name] != recorded.get(name)
        }
        if untold:
            self._outcomes[renewal.key] = untold
        self._told.set()

    def _replace(self, key: Key, jobs: Mapping[_Job, datetime]) -> None:
        """These are all the jobs of a CertRenewal; an attempt for any other is given up."""
        before, denied = self._waiting.pop(key, {}), self._not_before.pop(key, {})
        if held := {job: at for job, at in denied.items() if job in jobs}:
            self._not_before[key] = held
        running = [entry for (owner, _), entry in self._under_way.items() if owner == key]
        for job, task in running:
            if job not in jobs:
                task.cancel()
        busy = {job for job, _ in running}
        for job, at in jobs.items():
            if job in before and before[job] <= at:
                self._waiting[key][job] = before[job]
            elif job not in busy:
                self._wait(job, at)

    # -- the queue ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start what is due, for ever."""
        async with asyncio.TaskGroup() as attempts:
            while True:
                self._news.clear()
                while self._leads() and not self._closed and (job := self._next()) is not None:
                    task = attempts.create_task(self._attempt(job), name=f"hook {job.hook} of {job.key}")
                    self._under_way[job.place] = job, task
                    task.add_done_callback(partial(self._ended, job))
                await self._sleep()

    async def drain(self) -> None:
        """Start nothing more; return once what is under way has ended and was told."""
        self._closed = True
        while self._leads() and (self._under_way or self._outcomes):
            self._told.clear()
            await self._told.wait()

    def _wait(self, job: _Job, at: datetime) -> None:
        self._waiting[job.key][job] = at
        heapq.heappush(self._queue, (at, next(self._tickets), job))
        self._news.set()

    def _next(self) -> _Job | None:
        """The job that has waited longest, where there is room for it."""
        now, busy = self._clock(), Counter(key.namespace for key, _ in self._under_way)
        while self._queue and self._queue[0][0] <= now and len(self._under_way) < AT_ONCE:
            at, _, job = heapq.heappop(self._queue)
            if self._waiting.get(job.key, {}).get(job) != at:
                continue
            if job.place in self._under_way or busy[job.key.namespace] >= AT_ONCE_IN_NAMESPACE:
                self._parked[job.key.namespace].append(job)
                continue
            self._unlist(job)
            return job
        return None

    def _unlist(self, job: _Job) -> None:
        del self._waiting[job.key][job]
        if not self._waiting[job.key]:
            del self._waiting[job.key]

    def _ended(self, job: _Job, _: asyncio.Task[None]) -> None:
        del self._under_way[job.place]
        self._told.set()
        self._unpark(job.key.namespace)
        self._news.set()

    def _unpark(self, namespace: str) -> None:
        """There is room again: as many as may start come back, and one for each place that is still taken."""
        parked, room = self._parked.pop(namespace, deque()), 2 * AT_ONCE_IN_NAMESPACE
        while parked and room:
            job = parked.popleft()
            if (at := self._waiting.get(job.key, {}).get(job)) is not None:
                heapq.heappush(self._queue, (at, next(self._tickets), job))
                room -= 1
        if parked:
            self._parked[namespace] = parked

    async def _sleep(self) -> None:
        """Until there is news, or the next job is due."""
        delay = (self._queue[0][0] - self._clock()).total_seconds() if self._queue else None
        if delay is not None and not self._leads():
            delay = max(delay, GLANCE)
        if delay is not None and delay <= 0:
            delay = None  # due, and there is no room: an attempt that ends is news
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._news.wait()

    # -- one attempt -------------------------------------------------------------------------------------------

    async def _attempt(self, job: _Job) -> None:
        renewal = self._cache.renewals.get(job.key)
        spec = spec_of(renewal) if renewal else None
        hook = next((hook for hook in spec.hooks if hook.name == job.hook), None) if spec else None
        if renewal is None or spec is None or hook is None or renewal.generation != job.generation:
            return  # a look is about to say what is wanted instead
        if own_mark(renewal.status) != job.mark:
            return
        try:
            outcome = await self._deliver(renewal, spec, hook, job)
        except _Superseded:
            return  # the look that the other certificate brings says what is wanted
        except _Unchanged:
            self._hold(job, hook)
            return
        except NotLeading:
            self._wait(job, self._clock())  # for the case that it leads again
            return
        except ClusterError as failure:
            log.warning("hook put off", extra={"certrenewal": str(job.key), "hook": job.hook, "error": str(failure)})
            self._wait(job, self._clock() + CLUSTER_RETRY)
            return
        except Exception as failure:  # noqa: BLE001 - its text, and a traceback, could repeat what was sent
            outcome = _Outcome(State.FAILING, f"the attempt failed ({type(failure).__name__})")
        self._record(renewal, job, outcome)

    async def _deliver(self, renewal: Renewal, spec: Spec, hook: Hook, job: _Job) -> _Outcome:
        """What became of one attempt."""
        try:
            self._outbound.check(hook.host, hook.port)
            values, secrets = await self._values(renewal, hook, job)
            held = await self._held(renewal, spec)
            request = render(hook, _facts(renewal, held), values)
            trust = self._trust(hook, held)
            self._require()
            code = await self._outbound.send(request, trust, hook.timeout)
        except Denied as denial:
            return _Outcome(State.DENIED, str(denial))
        except Undelivered as failure:
            return _Outcome(State.FAILING, str(failure))
        return _Outcome(answered(code), _words(hook, code), secrets)

    async def _held(self, renewal: Renewal, spec: Spec) -> Held:
        """What the Secret holds right now, where it is the very certificate that status tells of."""
        self._require()
        secret = await self._store.read_secret(renewal.key.namespace, spec.secret_name)
        data, keys = (secret.data if secret else {}), spec.data_keys
        held = read_held(data.get(keys.crt, b""), data.get(keys.key, b""), data.get(keys.ca, b""))
        if held.chain is None or held.key is None or not key_fits(held.key, held.chain.leaf):
            raise _Superseded
        if held.chain.leaf.fingerprint != (renewal.status.get("certificate") or {}).get("fingerprint"):
            raise _Superseded
        return held

    async def _values(self, renewal: Renewal, hook: Hook, job: _Job) -> tuple[dict[KeyRef, str], str]:
        """The values of headers that lie in Secrets, and a digest of which they are; never what was refused before."""
        before = self._before(renewal, job)
        if refused := before is not None and before.state is State.REFUSED:
            for secret in _secrets(hook, job):
                self._refused[secret] = {known for known in self._refused[secret] if known.place != job.place} | {job}
        values: dict[KeyRef, str] = {}
        versions: list[str] = []
        for reference in sorted(hook.secrets, key=str):
            found = await self._store.read_secret(renewal.key.namespace, reference.name)
            values[reference] = _value(reference, found)
            versions += [version_of(found)] if found else []
        digest = hashlib.sha256(" ".join(versions).encode()).hexdigest()[:16] if versions else ""
        if refused and before is not None and before.secrets == digest:
            raise _Unchanged
        return values, digest

    def _hold(self, job: _Job, hook: Hook) -> None:
        """Until one of its Secrets is another; at once, where news of that came in between."""
        if all(job in self._refused.get(secret, ()) for secret in _secrets(hook, job)):
            self._not_before[job.key][job] = NEVER
        else:
            self._wait(job, self._clock())

    def _before(self, renewal: Renewal, job: _Job) -> Delivery | None:
        """What became of the last attempt of the same."""
        before = self._deliveries(job.key, renewal.status).get(job.hook)
        same = before is not None and (before.mark, before.generation) == (job.mark, job.generation)
        return before if same else None

    def _trust(self, hook: Hook, held: Held) -> Trust:
        roots = hook.ca_bundle.encode() if hook.ca_bundle else None
        if hook.authority is not None:
            view = self._view(hook.authority)
            if view is None or not view.roots:
                raise Undelivered(f"the roots of CertAuthority {hook.authority} are not known")
            roots = view.bundle
        assert held.chain is not None  # _held() saw to it
        assert held.key is not None
        return Trust(roots=roots, pair=dump_key(held.key) + held.chain.pem if hook.client_certificate else None)

    def _record(self, renewal: Renewal, job: _Job, outcome: _Outcome) -> None:
        """Keep what happened until a look has told of it."""
        metrics.HOOKS.labels(outcome=outcome.state.value).inc()
        now, before = self._clock(), self._before(renewal, job)
        if outcome.state is State.DENIED:
            later = self._not_before[job.key][job] = now + DENIED_RETRY
            if before is not None and (before.state, before.message) == (outcome.state, outcome.message):
                self._wait(job, later)  # no news
                return
        self._outcomes[job.key][job.hook] = Delivery(
            hook=job.hook,
            mark=job.mark,
            generation=job.generation,
            time=now.replace(microsecond=0),  # as status tells it
            attempts=(before.attempts if before else 0) + 1,
            state=outcome.state,
            message="" if outcome.state is State.DELIVERED else outcome.message,
            secrets=outcome.secrets if outcome.state is State.REFUSED else "",
        )
        self._poke(job.key)


def _hooks(renewal: Renewal) -> tuple[Hook, ...] | None:
    """What a CertRenewal asks for, None where that cannot be read."""
    try:
        return parse_hooks(renewal.spec.get("hooks") or ())
    except InvalidHook:
        return None


def _secrets(hook: Hook, job: _Job) -> set[Key]:
    return {Key(job.key.namespace, reference.name) for reference in hook.secrets}


def _value(reference: KeyRef, secret: Secret | None) -> str:
    """The value of a header, from the Secret that was found."""
    raw = secret.data.get(reference.key) if secret else None
    if raw is None:
        raise Undelivered(f"{reference} does not exist")
    value = header_value(raw)
    if value is None:
        raise Undelivered(f"{reference} is no value for a header: write printable ASCII characters in one line")
    return value


def _facts(renewal: Renewal, held: Held) -> Facts:
    assert held.chain is not None  # _held() saw to it
    assert held.key is not None
    leaf = held.chain.leaf
    return Facts(
        mark=own_mark(renewal.status) or "",
        crt=held.chain.pem.decode("ascii", "replace"),
        key=dump_key(held.key).decode(),
        ca=held.roots.decode("ascii", "replace"),
        serial=leaf.serial,
        not_after=timestamp(leaf.not_after),
        name=renewal.key.name,
        namespace=renewal.key.namespace,
    )


def _words(hook: Hook, code: int) -> str:
    """An answer in a sentence. The phrase is the standard's: the receiver's own could repeat what was sent."""
    try:
        phrase = f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        phrase = str(code)
    if 300 <= code < 400:
        return f"{hook.host} answered {phrase}, and redirects are not followed: name the URL that it leads to"
    if answered(code) is State.REFUSED:
        change = "a changed spec or Secret" if hook.secrets else "a changed spec"
        return f"{hook.host} answered {phrase}; the next attempt is for the next certificate or {change}"
    return f"{hook.host} answered {phrase}"
