"""Under kills of operator and CA and cut connections, no certificate is lost, and none is asked for in vain."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certrenewal.domain.certificate import key_fits, load_key, parse_chain
from certrenewal.domain.status import moment_of
from tests.cluster.site import SYSTEM, Site, installed
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.api import Manifest
from tests.testbed.controlplane import ControlPlane
from tests.testbed.faults import HttpProxy, api_proxy
from tests.testbed.operators import Operator
from tests.testbed.processes import until

SEED = 20261124
CERTIFICATES = 200
WORKLOADS = 20
CHAOS = 75.0  # seconds: longer than the life of most certificates
LEASE = {"CERTRENEWAL_LEASE_DURATION": "4s"}


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """The operator with a short Lease; the test runs its own one behind a proxy."""
    with installed(plane, make_ca(backdate="0s"), environment=LEASE) as running:
        yield running


class Chaos:
    """Faults by chance from a seed, each ended before the next, and a record of the kills."""

    def __init__(self, site: Site, proxy: HttpProxy, operator: Operator) -> None:
        self._random = random.Random(SEED)
        self._site = site
        self._proxy = proxy
        self._operator = operator
        self.kills = 0

    def run(self, seconds: float) -> None:
        """One fault after the other."""
        faults: list[Callable[[], None]] = [self._kill_operator, self._kill_ca, self._cut_api, self._fail_api]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._random.choice(faults)()
            time.sleep(self._random.uniform(0.5, 3))

    def _kill_operator(self) -> None:
        self._operator.kill()
        self.kills += 1
        self._operator.start()

    def _kill_ca(self) -> None:
        self._site.ca.kill()
        self.kills += 1
        time.sleep(self._random.uniform(0, 4))
        self._site.ca.start()

    def _cut_api(self) -> None:
        self._proxy.cut_streams()

    def _fail_api(self) -> None:
        method = self._random.choice(["PATCH", "GET", "POST"])
        rules = [
            self._proxy.cut_before(method, "/(secrets|certrenewals|deployments)/", times=2),
            self._proxy.cut_after(method, "/(secrets|certrenewals|deployments)/", times=2),
            self._proxy.answer(method, "/(secrets|certrenewals|deployments)/", 500, "{}", times=2),
        ]
        time.sleep(1)
        self._proxy.remove(*rules)


class Reader:
    """Polls every Secret, as pods would, and notes pairs that do not match and certificates that have ended."""

    def __init__(self, site: Site, namespace: str) -> None:
        self._site = site
        self._namespace = namespace
        self._stopped = False
        self.mismatches: list[str] = []
        self.expired: list[str] = []
        self.reads = 0

    def run(self) -> None:
        """Read until stopped."""
        while not self._stopped:
            for secret in self._site.plane.objects("secrets", self._namespace):
                if "tls.crt" in secret.get("data", {}):
                    self.reads += 1
                    if not fits(secret):
                        self.mismatches.append(secret["metadata"]["name"])
                    if datetime.now(UTC) >= parse_chain(manifests.decoded(secret, "tls.crt")).leaf.not_after:
                        self.expired.append(secret["metadata"]["name"])
            time.sleep(0.2)

    def stop(self) -> None:
        """End the polling."""
        self._stopped = True


def fits(secret: Manifest) -> bool:
    """Whether the pair in a Secret matches."""
    leaf = parse_chain(manifests.decoded(secret, "tls.crt")).leaf
    return key_fits(load_key(manifests.decoded(secret, "tls.key")), leaf)


def test_every_certificate_stays_fresh(site: Site, namespace: str, tmp_path: Path) -> None:
    names = [f"c{number:03}" for number in range(CERTIFICATES)]
    lives = random.Random(SEED)
    site.operator.stop()
    with api_proxy(site.plane, tmp_path) as proxy, ThreadPoolExecutor(1) as pool:
        operator = Operator(site.plane, SYSTEM, through=proxy, environment=LEASE)
        operator.start()
        for name in names:
            rotation = "Always" if lives.random() < 0.2 else "Never"
            site.order(namespace, name, duration=f"{lives.randint(60, 90)}s", key_rotation=rotation)
        for number in range(WORKLOADS):
            uses = [manifests.volume(name) for name in names[number * 3 : number * 3 + 3]]
            site.plane.create(manifests.deployment(f"w{number:02}", namespace, *uses))
        chaos, reader = Chaos(site, proxy, operator), Reader(site, namespace)
        reading = pool.submit(reader.run)
        try:
            chaos.run(CHAOS)
            until(lambda: not stale(site, namespace), 60, "every certificate fresh and every workload on it")
        finally:
            reader.stop()
            reading.result(30)
            operator.stop()

    assert reader.reads > CERTIFICATES
    assert reader.mismatches == []
    assert reader.expired == []
    assert chaos.kills > 5
    never_turning = [
        item
        for item in site.plane.objects("certrenewals", namespace)
        if item["spec"].get("key", {}).get("rotation") != "Always"
    ]
    first_signs = sum(
        call["path"].endswith("/sign") and call["status"] == 201 and is_of(call, never_turning)
        for call in site.ca.calls()
    )
    assert first_signs <= len(never_turning) + chaos.kills


def is_of(call: Manifest, renewals: list[Manifest]) -> bool:
    """Whether the CA signed for one of these."""
    subjects = {item["spec"]["names"][0] for item in renewals}
    return call.get("subject") in subjects


def stale(site: Site, namespace: str) -> list[str]:
    """What is not as it should be: certificates that are not fresh, workloads that do not run theirs."""
    now = datetime.now(UTC)
    faults: list[str] = []
    current: dict[str, str] = {}
    for secret in site.plane.objects("secrets", namespace):
        name = secret["metadata"]["name"]
        if "tls.crt" not in secret.get("data", {}):
            faults.append(f"{name}: empty")
            continue
        leaf = parse_chain(manifests.decoded(secret, "tls.crt")).leaf
        current[name] = leaf.fingerprint[:16]
        if not fits(secret) or now >= leaf.not_before + leaf.lifetime * 0.75:
            faults.append(f"{name}: not fresh")
    for item in site.plane.objects("certrenewals", namespace):
        status = item.get("status") or {}
        due = moment_of(status.get("renewalTime"))
        if "failure" in status or due is None:
            faults.append(f"{item['metadata']['name']}: {status.get('failure')}")
    for workload in site.plane.objects("deployments.apps", namespace):
        template = workload["spec"]["template"]
        marks = template["metadata"].get("annotations") or {}
        for volume in template["spec"]["volumes"]:
            name = volume["secret"]["secretName"]
            if marks.get(f"certificate.certrenewal.dev/{name}") != current.get(name):
                faults.append(f"{workload['metadata']['name']}: an older {name}")
    return faults
