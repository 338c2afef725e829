"""How much of what the CA can give does the operator get out of it, with the API server out of the way?

The whole operator but for its watches runs in this process, over objects in memory; then a client that does nothing but
post to ``/renew`` runs against the same CA.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import gc
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp

from certrenewal.controller import operator as operators
from certrenewal.domain.certificate import Chain, PrivateKey, load_key, parse_chain
from certrenewal.kube.client import Client, Configuration, Object
from certrenewal.kube.errors import NotFound
from certrenewal.settings import Settings
from certrenewal.stepca.tokens import renew_token
from certrenewal.tls import client_context
from tests.bench.bursts import names_of
from tests.cluster.site import OPEN_POLICY
from tests.testbed import manifests
from tests.testbed.controlplane import ControlPlane
from tests.testbed.stepca import StepCA

CONCURRENCY = 32
TURNS = 4
NAMESPACE = "bench"
PASSWORD = "password"

Pair = tuple[Chain, PrivateKey]


class Memory(Client):
    """Objects by their path, and the few verbs that the operator uses on them."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self.objects: dict[str, Object] = {}
        self.changed = asyncio.Event()
        self._versions = itertools.count(1)

    def put(self, path: str, body: Object) -> Object:
        """Make or replace an object."""
        self.changed.set()
        metadata = {"uid": path, "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1, **body["metadata"]}
        self.objects[path] = {**body, "metadata": {**metadata, "resourceVersion": str(next(self._versions))}}
        return self.objects[path]

    async def request(self, method: str, path: str, *, body: Object | None = None, **_: Any) -> Object:
        """As `Client` does it."""
        await asyncio.sleep(0)
        place, sent = path.partition("?")[0].removesuffix("/status"), body or {}
        if method == "POST":
            name = sent["metadata"].get("name") or str(next(self._versions))
            return self.put(f"{place}/{name}", sent)
        if place not in self.objects:
            raise NotFound(place)
        if method == "PATCH":
            self.put(place, _merged(self.objects[place], {**sent, "metadata": {}}))
        if method == "PUT":
            self.put(place, sent)
        return self.objects[place]


def _merged(known: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(known) if isinstance(known, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


@dataclass(slots=True)
class Spent:
    """What one of the two took."""

    seconds: float = 0.0
    cpu: float = 0.0  # of this process, in seconds

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Add what happens meanwhile."""
        started, used = time.perf_counter(), time.process_time()
        yield
        self.seconds += time.perf_counter() - started
        self.cpu += time.process_time() - used


class Bench:
    """An operator that leads, and knows what it is shown."""

    def __init__(self, ca: StepCA) -> None:
        configuration = Configuration(host="https://127.0.0.1:1")
        with mock.patch.object(operators, "Client", Memory):
            self.operator = operators.Operator(Settings(), configuration)
        assert isinstance(self.operator._client, Memory)
        self.memory = self.operator._client
        self.memory.put(
            f"/api/v1/namespaces/{NAMESPACE}/secrets/{PASSWORD}",
            manifests.secret(PASSWORD, NAMESPACE, {"password": ca.password}),
        )
        reference = {"namespace": NAMESPACE, "name": PASSWORD, "key": "password"}
        spec = {
            "url": ca.url,
            "fingerprint": ca.fingerprint,
            "provisioner": {"name": ca.provisioner, "passwordSecretRef": reference},
            "policy": OPEN_POLICY,
            "limits": {"concurrency": CONCURRENCY, "requestsPerSecond": 100_000},
        }
        about = {"metadata": {"name": "default"}, "spec": spec}
        self.operator.see_namespace(None, {"metadata": {"name": NAMESPACE}})
        self.operator.see_authority(None, self.memory.put(_path("certauthorities", "default", ""), about))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look at certificates."""
        self.operator._synced.set()
        tasks = [asyncio.create_task(work) for work in (self.operator._elector.run(), self.operator._work())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.operator.authorities.close()

    def order(self, name: str) -> None:
        """Ask for a certificate."""
        secret = self.memory.put(f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}", manifests.secret(name, NAMESPACE))
        about = {"name": name, "namespace": NAMESPACE}
        spec = {"secretName": name, "names": [f"{name}.{NAMESPACE}.svc"]}
        renewal = self.memory.put(_path("certrenewals", name), {"metadata": about, "spec": spec})
        self.operator._see_renewal("ADDED", renewal)
        self.operator._see_secret("ADDED", secret)

    def renew(self, name: str, value: str) -> None:
        """Ask for a renewal."""
        path = _path("certrenewals", name)
        known = self.memory.objects[path]
        about = {**known["metadata"], "annotations": manifests.prefixed(renew_now=value)}
        self.operator._see_renewal("MODIFIED", self.memory.put(path, {**known, "metadata": about}))

    def serial(self, name: str) -> str | None:
        """The serial that status tells."""
        status = self.memory.objects[_path("certrenewals", name)].get("status") or {}
        certificate: dict[str, str] = status.get("certificate") or {}
        return certificate.get("serial")

    def pair(self, name: str) -> Pair:
        """Certificate and key."""
        data = self.memory.objects[f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}"]["data"]
        return parse_chain(base64.b64decode(data["tls.crt"])), load_key(base64.b64decode(data["tls.key"]))


def _path(plural: str, name: str, namespace: str = NAMESPACE) -> str:
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/certrenewal.dev/v1alpha1{scope}/{plural}/{name}"


def ratio(_: ControlPlane, folder: Path, size: int) -> dict[str, float]:
    """Renewals a second, by the operator and by a client that does nothing else, in turns."""
    gc.freeze()  # as the operator does at its start
    with StepCA(folder / "ca", backdate="0s") as ca:
        return asyncio.run(_measure(ca, size))


async def _measure(ca: StepCA, size: int) -> dict[str, float]:
    bench, names = Bench(ca), names_of(size)
    ours, bare = Spent(), Spent()
    async with bench.running():
        for name in names:
            bench.order(name)
        await _changed(bench, dict.fromkeys(names))
        for turn in range(TURNS):
            before = {name: bench.serial(name) for name in names}
            with ours.counting():
                for name in names:
                    bench.renew(name, str(turn))
                await _changed(bench, before)
            await _bare(ca, [bench.pair(name) for name in names], bare)
    renewals = size * TURNS
    return {
        "operator, renewals a second": renewals / ours.seconds,
        "bare client, renewals a second": renewals / bare.seconds,
        "operator as a share of the bare client, %": bare.seconds / ours.seconds * 100,
        "CPU of the operator, ms each": ours.cpu / renewals * 1000,
        "CPU of the bare client, ms each": bare.cpu / renewals * 1000,
    }


async def _changed(bench: Bench, before: dict[str, str | None]) -> None:
    """Wait until every certificate is another one."""
    async with asyncio.timeout(300):
        for name, serial in before.items():
            while bench.serial(name) == serial:
                bench.memory.changed.clear()
                await bench.memory.changed.wait()


async def _bare(ca: StepCA, pairs: Sequence[Pair], spent: Spent) -> None:
    """A client that keeps nothing gets an answer of ``/renew`` for each pair."""
    waiting = iter(pairs)
    context = client_context(ca.root_file.read_bytes())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0)) as session:
        work = functools.partial(_post, session, ca.url, waiting)
        with spent.counting():
            await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def _post(session: aiohttp.ClientSession, url: str, waiting: Any) -> None:
    for chain, key in waiting:
        token = renew_token(chain, key, audience=f"{url}/1.0/renew", now=datetime.now(UTC))
        async with session.post(f"{url}/1.0/renew", headers={"Authorization": f"Bearer {token}"}) as answer:
            assert answer.status == 201, await answer.text()
            await answer.json()
