"""Where does a scenario play: an installed operator whose every request to the API server is on record?"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certrenewal.controller.operator import LEASE
from certrenewal.domain.status import HISTORY, timestamp
from tests.bench.cost import Meter, Records
from tests.cluster.site import SYSTEM, Site, authority, installed
from tests.testbed import manifests
from tests.testbed.api import Manifest
from tests.testbed.controlplane import ControlPlane, account_name
from tests.testbed.processes import until
from tests.testbed.stepca import StepCA

# What scenarios share with no one: no request of theirs is held back by a limit that is meant for production.
FREE: dict[str, Any] = {"restarts": {"perMinute": 60000, "cooldown": "0s"}}
UNLIMITED = {"concurrency": 32, "requestsPerSecond": 1000}
QUIETEST: dict[str, Any] = {"logLevel": "warning"}


@dataclass(frozen=True, slots=True)
class Stage:
    """A namespace with an operator, and what a scenario asks of them."""

    site: Site
    namespace: str

    def order(self, names: Sequence[str], **annotations: str) -> None:
        """Create Secrets that ask for a certificate each."""
        self.each(lambda name: self.site.order(self.namespace, name, **annotations), names)

    def orders(self, names: Sequence[str], **annotations: str) -> None:
        """As ``order``, and wait until all have one."""
        self.order(names, **annotations)
        self.await_ready(len(names))

    def await_ready(self, size: int) -> None:
        """Wait until that many have their certificate; asked less often the longer the answer is."""
        until(lambda: self.ready() >= size, 60 + size / 10, f"{size} certificates", pause=max(0.05, size / 500))

    def age(self, name: str) -> None:
        """Give a CertRenewal the longest history that there is, as if its certificate had been renewed for days."""
        latest = self.site.status(self.namespace, name)["history"][0]
        patch = {"status": {"history": [latest, *(_earlier(latest, number) for number in range(1, HISTORY))]}}
        self.site.plane.merge_patch("certrenewals", self.namespace, name, patch, subresource="status")

    @contextmanager
    def standing_by(self) -> Iterator[None]:
        """The operator, started anew, watches while somebody else leads; it leads once this ends."""
        self.site.operator.stop()
        self._lead("bench")
        self.site.operator.start()
        yield
        self._lead("")

    def _lead(self, holder: str) -> None:
        """Have the Lease held for an hour, or by nobody."""
        now = datetime.datetime.now(datetime.UTC)
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 3600, "renewTime": f"{now:%Y-%m-%dT%H:%M:%S.%fZ}"}
        self.site.plane.merge_patch("leases.coordination.k8s.io", SYSTEM, LEASE, {"spec": spec})

    def ready(self) -> int:
        """How many CertRenewals are Ready."""
        return len([item for item in self.renewals() if _is_true(item, "Ready")])

    def rolled_out(self) -> int:
        """How many CertRenewals have their certificate in every workload."""
        return len([item for item in self.renewals() if _is_true(item, "RolledOut")])

    def renewals(self) -> list[Manifest]:
        """The CertRenewals."""
        return self.site.plane.objects("certrenewals", self.namespace)

    def renew(self, names: Sequence[str], value: str) -> None:
        """Ask for a renewal of each."""
        self.each(lambda name: self.site.plane.annotate("certrenewals", self.namespace, name, renew_now=value), names)

    def each(self, work: Any, names: Sequence[str]) -> None:
        """Do it for each name, a few at a time."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, names))

    def meter(self) -> Meter:
        """What everything costs from now on."""
        site = self.site
        pids = {
            "operator": site.operator.process.pid,
            "step-ca": site.ca.process.pid,
            **{name: site.plane.process(name).pid for name in ("kube-apiserver", "etcd")},
        }
        return Meter(site.plane, pids).start()

    def records(self) -> Records:
        """The operator's requests to the API server about this namespace, from now on."""
        return Records(self.site.plane, account_name(SYSTEM, self.site.operator.account), self.namespace)


def _earlier(entry: Mapping[str, str], number: int) -> Manifest:
    """The entry of a certificate that was renewed so many times since, each time before two thirds of its life."""
    began, ended = _moment(entry["time"]), _moment(entry["notAfter"])
    before = (ended - began) * 0.6 * number
    return {
        **entry,
        "time": timestamp(began - before),
        "notAfter": timestamp(ended - before),
        "serial": str(secrets.randbits(127)),
        "fingerprint": secrets.token_hex(32),
    }


def _is_true(item: Manifest, kind: str) -> bool:
    conditions = (item.get("status") or {}).get("conditions") or ()
    return any(found["type"] == kind and found["status"] == "True" for found in conditions)


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


@contextmanager
def stage(
    plane: ControlPlane,
    folder: Path,
    name: str,
    values: Mapping[str, Any] | None = None,
    *,
    limits: Mapping[str, int] = UNLIMITED,
) -> Iterator[Stage]:
    """An operator with a CA of its own, and a namespace for what they are to work on."""
    with (
        StepCA(folder / name, backdate="0s") as ca,
        installed(plane, ca, values={"authority": authority(ca, limits=limits), **QUIETEST, **(values or {})}) as site,
    ):
        plane.create(manifests.namespace(name))
        yield Stage(site, name)
