"""How much of what the CA can give does the operator get out of it, with the API server out of the way?

The whole operator but for its watches runs in this process, over objects in memory; then a client that does nothing but
post to ``/renew`` runs against the same CA. Each does so twice: on all cores together with the CA, and with a core that the
CA leaves alone, as on machines of their own. What the client does better with is what the operator is held against.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp

from certrenewal.controller import operator as operators
from certrenewal.controller.cache import Key, secret_meta
from certrenewal.domain.certificate import Chain, PrivateKey, load_key, parse_chain
from certrenewal.kube.client import Configuration, Object
from certrenewal.kube.lease import Elector
from certrenewal.kube.store import Secret, Store, Subject
from certrenewal.settings import Settings
from certrenewal.stepca.tokens import renew_token
from certrenewal.tls import client_context
from tests.bench.bursts import names_of
from tests.cluster.site import OPEN_POLICY
from tests.testbed import manifests
from tests.testbed.stepca import StepCA

TURNS = 4
TOGETHER, APART = _PLACINGS = ("on all cores", "with a core of its own")
NAMESPACE = "bench"
PASSWORD = "password"

Pair = tuple[Chain, PrivateKey]


class Memory(Store):
    """Keeps Secrets and CertRenewals, and no Events. It answers in the next turn of the loop, as others do."""

    def __init__(self) -> None:
        self.secrets: dict[Key, Secret] = {}
        self.renewals: dict[Key, Object] = {}
        self.all_changed = asyncio.Event()
        self._awaited: set[str] = set()  # CertRenewals whose certificate is to be another one
        self._versions = itertools.count(1)

    def await_change(self, name: str) -> None:
        """``all_changed`` waits for another certificate of this one, too."""
        self._awaited.add(name)
        self.all_changed.clear()

    def put_secret(self, name: str, data: Mapping[str, bytes]) -> Secret:
        """Make or replace a Secret."""
        version = str(next(self._versions))
        made = Secret(
            namespace=NAMESPACE,
            name=name,
            uid=name,
            resource_version=version,
            immutable=False,
            annotations={},
            data=data,
        )
        self.secrets[Key(NAMESPACE, name)] = made
        return made

    def put_renewal(self, name: str, content: Object, **annotations: str) -> Object:
        """Make or replace a CertRenewal."""
        metadata = {
            "name": name,
            "namespace": NAMESPACE,
            "uid": name,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "generation": 1,
            "resourceVersion": str(next(self._versions)),
            "annotations": {
                **(content.get("metadata") or {}).get("annotations", {}),
                **manifests.prefixed(**annotations),
            },
        }
        self.renewals[Key(NAMESPACE, name)] = {**content, "metadata": metadata}
        return self.renewals[Key(NAMESPACE, name)]

    async def read_secret(self, namespace: str, name: str) -> Secret | None:
        """As `Store` does it."""
        await asyncio.sleep(0)
        return self.secrets.get(Key(namespace, name))

    async def write_secret(self, secret: Secret, data: Mapping[str, bytes | None]) -> str:
        """As `Store` does it."""
        await asyncio.sleep(0)
        whole = {**secret.data, **data}
        return self.put_secret(secret.name, {key: value for key, value in whole.items() if value}).resource_version

    async def write_status(self, namespace: str, name: str, uid: str, patch: Mapping[str, Any]) -> Object:
        """As `Store` does it."""
        await asyncio.sleep(0)
        key = Key(namespace, name)
        known = self.renewals[key]
        if "serial" in patch.get("certificate", ()):
            self._awaited.discard(name)
            if not self._awaited:
                self.all_changed.set()
        written = {
            **known,
            "metadata": {**known["metadata"], "resourceVersion": str(next(self._versions))},
            "status": _merged(known.get("status", {}), patch),
        }
        self.renewals[key] = written
        return written

    async def write_authority_status(self, name: str, uid: str, patch: Mapping[str, Any]) -> Object:
        """Nobody reads it."""
        return {"status": patch}

    async def post_event(self, subject: Subject, **_: Any) -> None:
        """Nobody reads them."""
        await asyncio.sleep(0)


def _merged(known: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7386), as deep as a status is patched."""
    merged = {**known, **patch}
    for key, value in patch.items():
        if isinstance(value, dict):
            merged[key] = _present({**known.get(key, {}), **value})
    return _present(merged)


def _present(members: dict[str, Any]) -> dict[str, Any]:
    return (
        {name: member for name, member in members.items() if member is not None}
        if None in members.values()
        else members
    )


class Always(Elector):
    """Leads."""

    @property
    def leads(self) -> bool:
        """As `Elector` does it."""
        return True


@dataclass(slots=True)
class Spent:
    """What one of the two took."""

    seconds: float = 0.0
    cpu: float = 0.0  # of this process, in seconds

    def __iadd__(self, other: Spent) -> Spent:
        self.seconds += other.seconds
        self.cpu += other.cpu
        return self

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Add what happens meanwhile."""
        started, used = time.perf_counter(), time.process_time()
        yield
        self.seconds += time.perf_counter() - started
        self.cpu += time.process_time() - used


class Bench:
    """An operator that leads, knows what it is shown, and asks the CA for so many certificates at a time."""

    def __init__(self, ca: StepCA, places: int) -> None:
        self.memory = Memory()
        self.memory.put_secret(PASSWORD, {"password": ca.password.encode()})
        with (
            mock.patch.object(operators, "Store", return_value=self.memory),
            mock.patch.object(operators, "Elector", Always),
        ):
            self.operator = operators.Operator(Settings(), Configuration(host="https://127.0.0.1:1"))
        reference = {"namespace": NAMESPACE, "name": PASSWORD, "key": "password"}
        spec = {
            "url": ca.url,
            "fingerprint": ca.fingerprint,
            "provisioner": {"name": ca.provisioner, "passwordSecretRef": reference},
            "policy": OPEN_POLICY,
            "limits": {"concurrency": places, "requestsPerSecond": 100_000},
        }
        self.operator.see_namespace(None, {"metadata": {"name": NAMESPACE, "uid": NAMESPACE}})
        self.operator.see_authority(None, {"metadata": {"name": "default", "uid": "default"}, "spec": spec})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look at certificates."""
        self.operator._synced.set()
        looks = asyncio.create_task(self.operator._work())
        try:
            yield
        finally:
            looks.cancel()
            await asyncio.gather(looks, return_exceptions=True)
            await self.operator.authorities.close()

    def order(self, name: str) -> None:
        """Ask for a certificate."""
        self.memory.await_change(name)
        spec = {"secretName": name, "names": [f"{name}.{NAMESPACE}.svc"]}
        self.operator._see_renewal("ADDED", self.memory.put_renewal(name, {"spec": spec}))
        secret = self.memory.put_secret(name, {})
        self.operator._poke(self.operator.cache.see_secret(secret_meta(secret)))

    def renew(self, name: str, value: str) -> None:
        """Ask for a renewal."""
        self.memory.await_change(name)
        renewal = self.memory.put_renewal(name, self.memory.renewals[Key(NAMESPACE, name)], renew_now=value)
        self.operator._see_renewal("MODIFIED", renewal)

    async def until_all_changed(self) -> None:
        """Wait until each for which something was asked has its certificate."""
        async with asyncio.timeout(300):
            await self.memory.all_changed.wait()

    def pair(self, name: str) -> Pair:
        """Certificate and key."""
        data = self.memory.secrets[Key(NAMESPACE, name)].data
        return parse_chain(data["tls.crt"]), load_key(data["tls.key"])


def ratio(folder: Path, size: int, places: Sequence[int]) -> dict[str, float]:
    """Renewals a second, by the operator and by a client that does nothing else, in turns; so many at a time."""
    figures: dict[str, float] = {}
    with StepCA(folder / "ca", backdate="0s") as ca:
        for number in places:
            found = asyncio.run(_measure(ca, size, number))
            figures |= {f"{number} at a time, {quantity}": value for quantity, value in found.items()}
    return figures


async def _measure(ca: StepCA, size: int, places: int) -> dict[str, float]:
    gc.collect()
    gc.freeze()  # as the operator does at its start
    bench, names = Bench(ca, places), names_of(size)
    ours, bare = ({placing: Spent() for placing in _PLACINGS} for _ in range(2))
    async with bench.running(), _session(ca) as session:
        for name in names:
            bench.order(name)
        await bench.until_all_changed()
        await _bare(
            session, ca, bench, names, places
        )  # its connections stand before anything counts, as the operator's do
        for turn, placing in itertools.product(range(TURNS), _PLACINGS):
            with _placed(ca, apart=placing == APART):
                for name in names:
                    bench.renew(name, f"{turn}, {placing}")
                with ours[placing].counting():
                    await bench.until_all_changed()
                bare[placing] += await _bare(session, ca, bench, names, places)
    renewals, best = size * TURNS, min(bare.values(), key=lambda spent: spent.seconds)
    figures = {"bare client at its best, renewals a second": renewals / best.seconds}
    for placing in _PLACINGS:
        figures |= {
            f"operator {placing}, renewals a second": renewals / ours[placing].seconds,
            f"operator {placing}, as a share of the bare client at its best, %": best.seconds
            / ours[placing].seconds
            * 100,
            f"CPU of the operator {placing}, ms each": ours[placing].cpu / renewals * 1000,
        }
    return {**figures, "CPU of the bare client, ms each": best.cpu / renewals * 1000}


@contextmanager
def _placed(ca: StepCA, *, apart: bool) -> Iterator[None]:
    """All cores for both, or the first one for us and the others for the CA."""
    cores = sorted(os.sched_getaffinity(0))
    if not apart or len(cores) < 2:
        yield
        return
    _tie(os.getpid(), cores[:1])
    _tie(ca.process.pid, cores[1:])
    try:
        yield
    finally:
        for process in (os.getpid(), ca.process.pid):
            _tie(process, cores)


def _tie(process: int, cores: Iterable[int]) -> None:
    """Let every thread of a process run on these cores alone; those that it starts later do as well."""
    for thread in os.listdir(f"/proc/{process}/task"):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), cores)


def _session(ca: StepCA) -> aiohttp.ClientSession:
    context = client_context(ca.root_file.read_bytes())
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0))


async def _bare(session: aiohttp.ClientSession, ca: StepCA, bench: Bench, names: Sequence[str], places: int) -> Spent:
    """A client that keeps nothing gets an answer of ``/renew`` for each certificate; what it took.

    What is to be done lies ready before anything counts: chains and keys read here, annotations seen there.
    """
    waiting, spent = iter([bench.pair(name) for name in names]), Spent()
    with spent.counting():
        await asyncio.gather(*(_post(session, ca.url, waiting) for _ in range(places)))
    return spent


async def _post(session: aiohttp.ClientSession, url: str, waiting: Iterator[Pair]) -> None:
    for chain, key in waiting:
        token = renew_token(chain, key, audience=f"{url}/1.0/renew", now=datetime.now(UTC))
        async with session.post(f"{url}/1.0/renew", headers={"Authorization": f"Bearer {token}"}) as answer:
            assert answer.status == 201, await answer.text()
            await answer.json()
