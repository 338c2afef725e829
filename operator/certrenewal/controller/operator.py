"""The running operator: its parts, wired together, started and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from certrenewal import metrics
from certrenewal.controller.assembly import Choices, Surroundings, assemble
from certrenewal.controller.authorities import Authorities
from certrenewal.controller.bundles import Bundles
from certrenewal.controller.bystanders import Bystanders
from certrenewal.controller.cache import Cache, Key, parse_renewal, parse_secret_meta
from certrenewal.controller.endpoint import Endpoint
from certrenewal.controller.following import Collection, Following
from certrenewal.controller.handout import Handout
from certrenewal.controller.hooks import Hooks
from certrenewal.controller.identity import Serving
from certrenewal.controller.probes import Probes
from certrenewal.controller.reloads import Reloads
from certrenewal.controller.reporter import Reporter
from certrenewal.controller.restarts import Limits, RestartQueue
from certrenewal.controller.schedule import Schedule
from certrenewal.controller.serving import Inquiries
from certrenewal.controller.touches import Touches
from certrenewal.domain.kinds import BUILT_IN, WATCHED, Resource, kind_word
from certrenewal.domain.names import parse_names
from certrenewal.domain.policy import Asker
from certrenewal.domain.rollout import parse_workload
from certrenewal.domain.spec import WorkloadRef
from certrenewal.domain.status import condition_of, moment_of, roots_in_use
from certrenewal.domain.timing import LONGEST_RETRY
from certrenewal.kube.client import Client, Configuration, server_hosts
from certrenewal.kube.errors import ClusterError
from certrenewal.kube.exec import Executor
from certrenewal.kube.lease import Elector, LeaseTimes, NotLeading
from certrenewal.kube.pods import Pods
from certrenewal.kube.store import GROUP, VERSION, Store
from certrenewal.kube.watching import Watching
from certrenewal.outbound import Outbound
from certrenewal.settings import Settings

log = logging.getLogger(__name__)

LEASE = "certrenewal"
GRACE = 10.0  # seconds for looks under way at the end; the kubelet gives 30
HOOKS_GRACE = 5.0  # the same for hooks under way
PASSED_AT_ONCE = 100  # certificates that have to wait, before others get their turn: a few milliseconds
SETTLED = 0.25  # seconds without an event from kopf after its last list

RENEWALS = Resource(GROUP, VERSION, "certrenewals")
AUTHORITIES = Resource(GROUP, VERSION, "certauthorities")
SECRETS = Resource("", "v1", "secrets")
NAMESPACES = Resource("", "v1", "namespaces")
CONFIG_MAPS = Resource("", "v1", "configmaps")
_SELECTED = {
    SECRETS: {"fieldSelector": "type!=helm.sh/release.v1"},
    BUILT_IN["Job"]: {"fieldSelector": "status.successful=0"},  # most Jobs are done long since
}


class Operator:
    """One replica: it watches always, and acts while it holds the Lease."""

    def __init__(self, settings: Settings, configuration: Configuration) -> None:
        self.settings = settings
        self.cache = Cache()
        self._synced = asyncio.Event()
        self._client = Client(configuration)
        self._store = Store(self._client, reporter=settings.identity)
        self.watching = Watching(configuration)
        self._following = Following(self.watching, settings.watch_namespaces, self._collections())
        self._elector = Elector(
            self._client,
            namespace=settings.namespace,
            name=LEASE,
            identity=settings.identity,
            times=LeaseTimes.lasting(settings.lease_duration),
        )
        reporter = Reporter(self._store, _now)
        self.schedule = Schedule(self._urgency)
        self.authorities = Authorities(
            store=self._store,
            reporter=reporter,
            leads=self._leads,
            clock=_now,
            changed=self._authority_changed,
            needed=self._roots_in_use,
            call_back=self.schedule.poke,
        )
        pods = Pods(self._client)
        self._touches = Touches(pods, self._leads) if settings.restarts_touch_pods else None
        self._executor = Executor(configuration)
        self._bystanders = (
            Bystanders(cache=self.cache, pods=pods, leads=self._leads, poke=self.schedule.poke)
            if settings.restarts_report_pods
            else None
        )
        reloads = Reloads(pods=pods, executor=self._executor, touches=self._touches, leads=self._leads, clock=_now)
        self._restarts = RestartQueue(
            cache=self.cache,
            store=self._store,
            reporter=reporter,
            leads=self._leads,
            limits=Limits(
                per_minute=settings.restarts_per_minute,
                per_minute_in_namespace=settings.restarts_per_minute_in_namespace,
                cooldown=settings.restarts_cooldown,
                together=settings.restarts_together / 100,
            ),
            poke=self.schedule.poke,
            clock=_now,
            reloads=reloads if settings.restarts_signal else None,
        )
        self._inquiries = Inquiries(
            store=self._store,
            leads=self._leads,
            poke=self.schedule.poke,
            cluster_domain=settings.cluster_domain,
        )
        self._outbound = Outbound(settings.hooks_allowed_hosts, api_server=server_hosts(configuration))
        self._hooks = Hooks(
            cache=self.cache,
            store=self._store,
            outbound=self._outbound,
            view=self.authorities.view,
            leads=self._leads,
            require=self._elector.require,
            poke=self.schedule.poke,
            clock=_now,
        )
        self._reconciler = assemble(
            Surroundings(
                cache=self.cache,
                store=self._store,
                authorities=self.authorities,
                restarts=self._restarts,
                hooks=self._hooks,
                require=self._elector.require,
                clock=_now,
                servers=self._inquiries,
                hurry=self._touches.soon if self._touches else None,
                aside=lambda: _Aside(self._places),
            ),
            Choices(
                cluster_domain=settings.cluster_domain,
                grace=settings.revocation_grace,
                together=settings.restarts_together / 100,
                may_signal=settings.restarts_signal,
            ),
        )
        self._probes = Probes(
            host=settings.listen_host,
            port=settings.listen_port,
            healthy=self._fault,
            ready=self._synced.is_set,
        )
        self.bundles = Bundles(
            store=self._store,
            reporter=reporter,
            leads=self._leads,
            view=self.authorities.view,
            namespaces=settings.watch_namespaces,
        )
        self._endpoint = self._token_endpoint()
        self._events = 0
        self._failures: dict[Key, int] = {}
        self._places = asyncio.Semaphore(settings.workers)
        self._looks: dict[Key, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Serve probes, stand for the Lease, and wait for work."""
        metrics.CERTIFICATES.gather = self._certificates
        metrics.SCHEDULE.set_function(self.schedule.__len__)
        await self._probes.start()
        await self._until_installed()
        parts = {
            "following": self._following.run(),
            "elector": self._elector.run(),
            "sync": self._sync(),
            "restarts": self._restarts.run(),
            "looks": self._work(),
            "bundles": self._bundle(),
            "hooks": self._hooks.run(),
            **({"token endpoint": self._serve_tokens(self._endpoint)} if self._endpoint else {}),
        }
        if self._bystanders is not None:
            parts["bystanders"] = self._bystanders.run()
        self._tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]

    async def stop(self) -> None:
        """Finish what is under way, release the Lease, close what is open."""
        log.info("stopping")
        with contextlib.suppress(TimeoutError):
            # A hook that was delivered is still to be told of: the next leader would deliver it once more.
            async with asyncio.timeout(HOOKS_GRACE):
                await self._hooks.drain()
        with contextlib.suppress(TimeoutError):
            # A certificate that was just signed is still to be written: the next leader would ask for another.
            async with asyncio.timeout(GRACE):
                await self.schedule.close()
        workers = [task for task in (*self._tasks, *self._looks.values()) if task.get_name() != "elector"]
        elector = [task for task in self._tasks if task.get_name() == "elector"]
        for group in (workers, elector):
            for task in group:
                task.cancel()
            await asyncio.gather(*group, return_exceptions=True)
        await self._inquiries.close()
        if self._touches is not None:
            await self._touches.close()
        await self._executor.close()
        await self.authorities.close()
        self._outbound.close()
        await self._client.close()
        await self._probes.stop()

    # -- news from the watches ---------------------------------------------------------------------------------

    def _collections(self) -> tuple[Collection, ...]:
        """What is followed; CertRenewals ahead, as a Secret that none of them names need not be kept."""
        cache = self.cache
        workloads = (
            Collection(
                resource=resource,
                see=functools.partial(self._see_workload, resource),
                known=functools.partial(cache.places, resource),
                query=_SELECTED.get(resource, {}),
                may_be_absent=resource in self.settings.extra_workloads,
            )
            for resource in (*WATCHED, *self.settings.extra_workloads)
        )
        return (
            Collection(resource=RENEWALS, see=self._see_renewal, known=lambda: cache.renewals),
            Collection(
                resource=SECRETS,
                see=self._see_secret,
                known=lambda: cache.secrets,
                query=_SELECTED[SECRETS],
            ),
            *workloads,
        )

    def _see_secret(self, event: str, body: Mapping[str, Any]) -> None:
        """A Secret's metadata; only name and namespace are sure where it is gone."""
        if event == "DELETED":
            key = Key(body["metadata"]["namespace"], body["metadata"]["name"])
            self.authorities.see_secret(key)
            self._hooks.see_secret(key)
            self._poke(self.cache.lose_secret(key))
            return
        secret = parse_secret_meta(body)
        known = self.cache.secrets.get(secret.key)
        if known is None or known.version != secret.version:
            self.authorities.see_secret(secret.key)
        self._hooks.see_secret(secret.key)
        self._poke(self.cache.see_secret(secret))

    def _see_renewal(self, event: str, body: Mapping[str, Any]) -> None:
        """A CertRenewal."""
        if event == "DELETED":
            self._poke(self.cache.lose_renewal(Key(body["metadata"]["namespace"], body["metadata"]["name"])))
        else:
            self._poke(self.cache.see_renewal(parse_renewal(body)))

    def _see_workload(self, resource: Resource, event: str, body: Mapping[str, Any]) -> None:
        """A workload."""
        metadata, kind = body["metadata"], kind_word(body["kind"], resource.group)
        if event == "DELETED":
            ref = WorkloadRef(kind, metadata["name"])
            self._restarts.lose(metadata["namespace"], ref)
            self._poke(self.cache.lose_workload(metadata["namespace"], ref))
        else:
            as_reloader = self.settings.restarts_honour_reloader
            self._poke(self.cache.see_workload(parse_workload(kind, body, resource, as_reloader=as_reloader)))

    def see_authority(self, event: str | None, body: Mapping[str, Any]) -> None:
        """A CertAuthority, as the watch shows it."""
        self._events += 1
        if event == "DELETED":
            self.authorities.lose(body["metadata"]["name"], body["metadata"]["uid"])
        else:
            self.authorities.see(body)

    def see_namespace(self, event: str | None, body: Mapping[str, Any]) -> None:
        """A namespace's metadata, as the watch shows it."""
        self._events += 1
        metadata = body["metadata"]
        name, uid = metadata["name"], metadata["uid"]
        if event == "DELETED" or metadata.get("deletionTimestamp"):
            if self.cache.lose_namespace(name, uid):
                self.bundles.lose_namespace(name)
            return
        self.bundles.see_namespace(name, metadata.get("annotations") or {})
        changed = self.cache.see_namespace(name, uid, metadata.get("labels") or {})
        if changed and self._synced.is_set():  # before, nobody has looked at anything, and each is looked at then
            self._poke({key for key in self.cache.renewals if key.namespace == name})

    def see_config_map(self, event: str | None, body: Mapping[str, Any]) -> None:
        """A ConfigMap with roots, as the watch shows it."""
        if event == "DELETED":
            self.bundles.lose_config_map(body)
        else:
            self.bundles.see_config_map(body)

    def _poke(self, keys: set[Key]) -> None:
        self._events += 1
        for key in keys:
            self.schedule.poke(key)

    def _authority_changed(self, name: str) -> None:
        self.bundles.authority_changed(name)
        if self._endpoint is not None:
            self._endpoint.serving.authority_changed(name)
        for renewal in self.cache.renewals_of(name):
            self.schedule.poke(renewal.key)

    def _roots_in_use(self, name: str) -> set[str] | None:
        """The roots that certificates of this authority lead to; None before all certificates are known."""
        if not self._synced.is_set():
            return None
        now = _now()
        return {root for renewal in self.cache.renewals_of(name) for root in roots_in_use(renewal.status, now)}

    # -- the loop ----------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Look at certificates, a few at a time, while this replica leads and knows the cluster."""
        await self._synced.wait()
        while True:
            await self._elector.until_leading()
            await self._places.acquire()
            key = await self._next()
            self._looks[key] = asyncio.create_task(self._take_place(key), name=f"look {key}")

    async def _next(self) -> Key:
        """The next certificate that does not have to wait for its authority."""
        for passed in itertools.count(1):
            key = await self.schedule.next()
            if not self._reconciler.must_wait(key):
                break
            self.schedule.finish(key, None)
            if passed % PASSED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return key

    async def _take_place(self, key: Key) -> None:
        """One look, by one of the workers."""
        started = time.perf_counter()
        due: float | None = time.time() + LONGEST_RETRY.total_seconds()  # where not even `_look` could say
        try:
            due = await self._look(key)
        finally:
            self._places.release()
            del self._looks[key]
            self.schedule.finish(key, due)
        metrics.LOOK_SECONDS.observe(time.perf_counter() - started)

    async def _look(self, key: Key) -> float | None:
        """One look, and when the next is due: soon where this one could not end."""
        try:
            due = await self._reconciler.look(key)
        except NotLeading:
            return time.time()
        except ClusterError as failure:
            delay = self._backoff(key)
            log.warning("look cut short", extra={"certrenewal": str(key), "error": str(failure), "retry_in": delay})
            return time.time() + delay
        except Exception:
            delay = self._backoff(key)
            log.exception("look failed", extra={"certrenewal": str(key), "retry_in": delay})
            return time.time() + delay
        self._failures.pop(key, None)
        if self._bystanders is not None:
            self._bystanders.see(key)
        return due.timestamp() if due else None

    def _backoff(self, key: Key) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return min(0.2 * float(2 ** min(failures, 10)), LONGEST_RETRY.total_seconds())

    async def _sync(self) -> None:
        """Wait for the first lists; then, whenever this replica leads, have told and written what waits for that."""
        await self._following.until_listed()
        await self.watching.until_listed(self._expected())
        seen = -1
        while seen != self._events:
            seen = self._events
            await asyncio.sleep(SETTLED)
        log.info("first lists are in", extra={"certrenewals": len(self.cache.renewals)})
        self._synced.set()
        while True:
            await self._elector.until_leading()
            self.authorities.wake()
            self.bundles.wake()
            await self._elector.until_not_leading()

    async def _bundle(self) -> None:
        """Once it is known what namespaces ask for: a ConfigMap that nobody asks for is removed."""
        await self._synced.wait()
        await self.bundles.run()

    def _expected(self) -> set[str]:
        """The collections that kopf watches, as paths."""
        expected = {AUTHORITIES.path(), NAMESPACES.path()}
        if self.settings.trust_bundles:
            expected |= {CONFIG_MAPS.path(namespace) for namespace in self.settings.watch_namespaces or ("",)}
        return expected

    async def _until_installed(self) -> None:
        """Wait for the CRDs: kopf would take their absence at start for good."""
        while True:
            try:
                found = await self._client.request("GET", f"/apis/{GROUP}/{VERSION}")
                if {"certrenewals", "certauthorities"} <= {r["name"] for r in found.get("resources") or ()}:
                    return
                log.warning("the CRDs are not installed yet")
            except ClusterError as failure:
                log.warning("the API server does not know our CRDs yet", extra={"error": str(failure)})
            await asyncio.sleep(1)

    def _token_endpoint(self) -> Endpoint | None:
        """What hands out tokens over HTTPS, where that is asked for."""
        settings = self.settings
        if settings.token_listen is None:
            return None
        handout = Handout(
            review=self._store.review_token,
            authorities=self.authorities,
            labels=self.cache.labels,
            namespaces=settings.watch_namespaces,
            cluster_domain=settings.cluster_domain,
            per_minute=settings.tokens_per_minute,
            clock=_now,
        )
        serving = Serving(
            names=parse_names(settings.token_names),
            authority=settings.token_authority,
            authorities=self.authorities,
            asker=lambda: Asker(
                namespace=settings.namespace,
                labels=self.cache.labels.get(settings.namespace, {}),
                cluster_domain=settings.cluster_domain,
            ),
            identity=settings.identity,
            clock=_now,
        )
        host, port = settings.token_listen
        return Endpoint(host=host, port=port, handout=handout, serving=serving)

    async def _serve_tokens(self, endpoint: Endpoint) -> None:
        """On every replica, once policies can be judged: namespaces and their labels are known."""
        await self._synced.wait()
        await endpoint.run()

    def _fault(self) -> str | None:
        """What should make the kubelet start this process anew."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return f"{task.get_name()} ended: {type(task.exception()).__name__}"
        return self.watching.fault()

    def _certificates(self) -> Iterator[metrics.Sample]:
        """What /metrics tells of each certificate, on the replica that acts."""
        if self._leads():
            for renewal in self.cache.renewals.values():
                if not renewal.is_token:
                    begins = moment_of((renewal.status.get("certificate") or {}).get("notBefore"))
                    due = moment_of(renewal.status.get("renewalTime"))
                    yield metrics.Sample(
                        namespace=renewal.key.namespace,
                        name=renewal.key.name,
                        ready=condition_of(renewal.status, "Ready").get("status") == "True",
                        failing="failure" in renewal.status,
                        ends=renewal.urgency,
                        lifetime=renewal.urgency - begins.timestamp() if begins else 0.0,
                        due=due.timestamp() if due else 0.0,
                    )

    def _leads(self) -> bool:
        return self._elector.leads

    def _urgency(self, key: Key) -> float:
        renewal = self.cache.renewals.get(key)
        return renewal.urgency if renewal else 0.0


class _Aside:
    """While a look waits for a CA, another one works in its place."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places

    async def __aenter__(self) -> None:
        self._places.release()

    async def __aexit__(self, *_: object) -> None:
        await self._places.acquire()


def _now() -> datetime:
    return datetime.now(UTC)
