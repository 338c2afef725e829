"""What does a cluster test speak of: an installed operator with one CA, and certificates that can be asked about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from certrenewal.domain.certificate import Chain, key_fits, load_certificates, load_key, parse_chain
from tests.testbed import manifests, operators
from tests.testbed.api import ApiError, Manifest
from tests.testbed.cluster import Cluster, account_name
from tests.testbed.controlplane import ControlPlane
from tests.testbed.operators import Operator
from tests.testbed.processes import until
from tests.testbed.stepca import StepCA

SYSTEM = "certrenewal"
PASSWORD_SECRET = "provisioner-password"
OPEN_POLICY: list[dict[str, Any]] = [
    {
        "namespaces": ["*"],
        "names": ["*.example.com", "**.apps.example.com", "10.0.0.0/8", "*@example.com", "spiffe://example.com/*"],
    }
]
PATIENCE = 20.0
LEASE = {"CERTRENEWAL_LEASE_DURATION": "5s"}  # where operators are killed: each kill waits for the Lease to run out


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What tests ask of certificates in any cluster."""

    plane: Cluster
    patience: float = PATIENCE

    def order(self, namespace: str, name: str = "web-tls", **annotations: str) -> Manifest:
        """Create an empty Secret that asks for ``NAME.NAMESPACE.svc``, or for what ``annotations`` say."""
        wish = {"renew": "true", "names": f"{name}.{namespace}.svc", **annotations}
        return self.plane.create(manifests.secret(name, namespace, annotations=manifests.prefixed(**wish)))

    def secret(self, namespace: str, name: str = "web-tls") -> Manifest:
        """The Secret."""
        return self.plane.get("secrets", namespace, name)

    def status(self, namespace: str, name: str = "web-tls") -> Manifest:
        """The CertRenewal's status, empty where there is none."""
        found = self.plane.find("certrenewals", namespace, name)
        status: Manifest = (found or {}).get("status") or {}
        return status

    def condition(self, namespace: str, name: str = "web-tls", kind: str = "Ready") -> tuple[str, str]:
        """Status and reason of a condition, two empty texts where there is none."""
        found = condition_of(self.status(namespace, name), kind)
        return found.get("status", ""), found.get("reason", "")

    def message(self, namespace: str, name: str = "web-tls", kind: str = "Ready") -> str:
        """The message of a condition."""
        return str(condition_of(self.status(namespace, name), kind).get("message", ""))

    def await_condition(
        self, namespace: str, name: str = "web-tls", *, kind: str = "Ready", status: str, reason: str = ""
    ) -> str:
        """Wait for a condition with that status, and reason where one is given; its message."""

        def there() -> bool:
            found = self.condition(namespace, name, kind)
            return found[0] == status and reason in ("", found[1])

        until(there, self.patience, f"{kind}={status} {reason} of {namespace}/{name}")
        return self.message(namespace, name, kind)

    def await_ready(self, namespace: str, name: str = "web-tls") -> Chain:
        """Wait until the Secret holds a certificate and the CertRenewal says so; the chain."""
        self.await_condition(namespace, name, status="True")
        return self.chain(namespace, name)

    def await_new(self, namespace: str, name: str = "web-tls", *, after: Chain, patience: float = 0) -> Chain:
        """Wait until status tells of another certificate than ``after``; the new chain."""

        def changed() -> bool:
            certificate = self.status(namespace, name).get("certificate") or {}
            return certificate.get("fingerprint") not in (None, after.leaf.fingerprint)

        until(changed, patience or self.patience, f"another certificate in {namespace}/{name}")
        return self.chain(namespace, name)

    def await_rolled_out(self, namespace: str, name: str = "web-tls") -> None:
        """Wait until every dependent runs the certificate."""
        self.await_condition(namespace, name, kind="RolledOut", status="True")

    def chain(self, namespace: str, name: str = "web-tls") -> Chain:
        """The chain in the Secret, proven to fit its key and to lead to a root beside it."""
        found = self.secret(namespace, name)
        chain = parse_chain(manifests.decoded(found, "tls.crt"))
        roots = load_certificates(manifests.decoded(found, "ca.crt"))

        assert key_fits(load_key(manifests.decoded(found, "tls.key")), chain.leaf)
        assert chain.holds(roots)
        assert chain.leaf.not_before <= datetime.now(UTC) < chain.leaf.not_after
        return chain

    def generation(self, namespace: str, name: str, kind: str = "deployments") -> int:
        """The generation of a workload: each restart is one more."""
        return int(self.plane.get(f"{kind}.apps", namespace, name)["metadata"]["generation"])

    def events(self, namespace: str, name: str = "web-tls", reason: str = "") -> list[Manifest]:
        """The Events about an object, of one reason where one is given."""
        return [event for event in self.plane.events(namespace, name) if reason in ("", event["reason"])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site(Certificates):
    """One release of the chart, its CA, and what tests ask of them."""

    plane: ControlPlane
    ca: StepCA
    operator: Operator

    def calls(self) -> int:
        """How many certificates the CA was asked for, by any route."""
        return sum(self.ca.count(path) for path in ("/sign", "/renew", "/rekey"))

    def requests(self, namespace: str, since: datetime, *, verb: str = "") -> list[Manifest]:
        """The operator's requests about a namespace, in the order in which they came to the API server."""
        found = [
            record
            for record in self.plane.audit(account_name(SYSTEM, self.operator.account), since=since)
            if record.get("objectRef", {}).get("namespace") == namespace and verb in ("", record["verb"])
        ]
        return sorted(found, key=lambda record: str(record["requestReceivedTimestamp"]))


def condition_of(status: Mapping[str, Any], kind: str) -> Manifest:
    """One condition of a status, empty where there is none."""
    return next((c for c in status.get("conditions") or () if c["type"] == kind), {})


@contextmanager
def installed(
    plane: ControlPlane,
    ca: StepCA,
    *,
    values: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Site]:
    """The chart installed for ``ca``, with one operator running as its Deployment says; all gone afterwards."""
    prepare(plane, ca)
    operators.install(plane, SYSTEM, values={"authority": authority(ca), "logLevel": "debug", **(values or {})})
    operator = Operator(plane, SYSTEM, environment=environment)
    try:
        operator.start()
        yield Site(plane=plane, ca=ca, operator=operator)
    finally:
        operator.stop()
        operators.uninstall(plane, SYSTEM)
        sweep(plane)


def prepare(plane: ControlPlane, ca: StepCA) -> None:
    """The namespace of the release, with the provisioner's password in it."""
    if plane.find("namespaces", "", SYSTEM) is None:
        plane.create(manifests.namespace(SYSTEM))
    plane.apply(manifests.secret(PASSWORD_SECRET, SYSTEM, {"password": ca.password}))


def authority(ca: StepCA, **more: Any) -> Manifest:
    """The chart's ``authority`` values for ``ca``."""
    return {
        "create": True,
        "url": ca.url,
        "fingerprint": ca.fingerprint,
        "provisioner": {
            "name": ca.provisioner,
            "passwordSecretRef": {"namespace": SYSTEM, "name": PASSWORD_SECRET, "key": "password"},
        },
        "policy": OPEN_POLICY,
        **more,
    }


def sweep(plane: ControlPlane) -> None:
    """Remove the objects that outlive a release, so that the next module starts from nothing."""
    for plural in ("certauthorities", "certrenewals"):
        for item in listed(plane, plural):
            with suppress(ApiError):  # the namespace controller may be faster
                plane.delete(plural, item["metadata"].get("namespace", ""), item["metadata"]["name"])


def listed(plane: ControlPlane, plural: str) -> list[Manifest]:
    """All objects of a kind whose definition may have been installed a moment ago: its storage answers 429 then."""

    def found() -> tuple[list[Manifest]]:
        return (plane.objects(plural),)

    return until(found, 10, f"{plural} can be listed", ignoring=(ApiError,))[0]
