"""What does a client notice of a renewal: a server, its certificate, and whoever connects to it ten times a second."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from certrenewal.domain.certificate import Chain
from tests.node import stories
from tests.node.node import Node
from tests.node.site import NodeSite
from tests.node.stories import Meeting
from tests.testbed import manifests
from tests.testbed.api import Manifest
from tests.testbed.processes import until

NEVER = manifests.prefixed(restart="Never")
SIGNAL = manifests.prefixed(restart="Signal")

_PATIENCE = 90
_LAST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A server to be, as ``stories.server`` takes it, with annotations of the workload and wishes of its Secret."""

    name: str
    kind: str = "Deployment"
    replicas: int = 2
    reload: str = "never"
    mutual: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)
    wish: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stand:
    """A server behind a Service of its name, the certificate that it began with, and its client."""

    site: NodeSite
    namespace: str
    plan: Plan
    first: Chain
    began: str = ""  # since when all is well: the first connections of a pod may fail while others are being started

    @property
    def secret(self) -> str:
        """The Secret that it mounts."""
        return f"{self.plan.name}-tls"

    @property
    def client(self) -> str:
        """The pod, or with mutual TLS the Deployment, that connects to it."""
        return f"{self.plan.name}-client"

    @property
    def workload(self) -> str:
        """As kubectl names it."""
        return f"{self.plan.kind.lower()}/{self.plan.name}"

    def renew(self) -> None:
        """Ask for another certificate, at once."""
        self.site.plane.annotate("secrets", self.namespace, self.secret, renew_now=secrets.token_hex(4))

    def await_new(self) -> Chain:
        """Wait until status tells of another certificate than the first."""
        return self.site.await_new(self.namespace, self.secret, after=self.first)

    def await_rolled_out(self) -> None:
        """Wait until the operator says that all runs the certificate, and the cluster says so too."""
        self.site.await_rolled_out(self.namespace, self.secret)
        self.site.plane.await_rollout(self.namespace, self.workload)

    def await_condition(self, kind: str, status: str, reason: str = "") -> str:
        """Wait for a condition of its certificate; its message."""
        return self.site.await_condition(self.namespace, self.secret, kind=kind, status=status, reason=reason)

    def standing(self) -> tuple[str, str]:
        """State and message of the workload in status."""
        (found,) = self.site.status(self.namespace, self.secret)["workloads"]
        return found["state"], found.get("message", "")

    def pods(self) -> list[Manifest]:
        """The server's pods that are not about to go."""
        return self.site.plane.pods(self.namespace, f"app={self.plan.name}")

    def lives(self) -> dict[str, int]:
        """The server's pods, each by its own id, and how often their containers were started again."""
        return {pod["metadata"]["uid"]: _restarts(pod) for pod in self.pods()}

    def met(self) -> list[Meeting]:
        """The connections of its client."""
        return self.since(stories.meetings(self.site.plane, self.namespace, self.client))

    def since(self, found: list[Meeting]) -> list[Meeting]:
        """Those since all is well."""
        return [meeting for meeting in found if meeting.at >= self.began]

    def await_only(self, chain: Chain) -> list[Meeting]:
        """Wait until the last connections met this certificate and no other; all connections."""
        found: list[Meeting] = []

        def settled() -> bool:
            found[:] = self.met()
            return {meeting.decimal for meeting in found[-_LAST:]} == {chain.leaf.serial}

        until(settled, _PATIENCE, f"{self.client} meets serial {chain.leaf.serial} alone", log=lambda: str(found[-3:]))
        return found

    def assert_unnoticed(self, last: Chain) -> None:
        """Its client met the first certificate, then this one, no other, and nothing failed."""
        found = self.await_only(last)
        failures, serials = stories.failed(found), {meeting.decimal for meeting in found}

        assert not failures, failures
        assert serials == {self.first.leaf.serial, last.leaf.serial}, serials


@contextmanager
def shop(node: Node, name: str) -> Iterator[str]:
    """A namespace for the tests of a module."""
    namespace = f"{name}-{secrets.token_hex(2)}"
    stories.open_shop(node, namespace)
    try:
        yield namespace
    finally:
        node.delete("namespaces", "", namespace)


def stage(site: NodeSite, namespace: str, *plans: Plan) -> dict[str, Stand]:
    """Servers that serve, and clients that have met them; all at once."""
    for plan in plans:
        site.order(namespace, f"{plan.name}-tls", names=f"{plan.name}.{namespace}.svc", **plan.wish)
        if plan.mutual:
            site.order(namespace, f"{plan.name}-client-tls")
    stands = {
        plan.name: Stand(
            site=site, namespace=namespace, plan=plan, first=site.await_ready(namespace, f"{plan.name}-tls")
        )
        for plan in plans
    }
    stories.create(site.plane, *(_server(stand) for stand in stands.values()))
    for stand in stands.values():
        site.plane.await_rollout(namespace, stand.workload, timeout=_PATIENCE)
    stories.create(site.plane, *(_client(stand) for stand in stands.values()))
    return {
        name: replace(stand, began=stories.await_well(site.plane, namespace, _target(stand), patience=_PATIENCE))
        for name, stand in stands.items()
    }


def _restarts(pod: Manifest) -> int:
    return sum(status["restartCount"] for status in pod["status"].get("containerStatuses") or ())


def _server(stand: Stand) -> list[Manifest]:
    plan = stand.plan
    return stories.server(
        stand.namespace,
        plan.name,
        kind=plan.kind,
        secret=stand.secret,
        replicas=plan.replicas,
        reload=plan.reload,
        mutual=plan.mutual,
        annotations=dict(plan.annotations),
    )


def _client(stand: Stand) -> Manifest:
    return stories.client(
        stand.namespace,
        stand.client,
        url=f"https://{stand.plan.name}.{stand.namespace}.svc",
        secret=f"{stand.client}-tls",
        mutual=stand.plan.mutual,
    )


def _target(stand: Stand) -> str:
    return f"deployment/{stand.client}" if stand.plan.mutual else stand.client
