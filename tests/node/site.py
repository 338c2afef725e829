"""What does a test on the node speak of: the operator in its pods, the CA in its own, and certificates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.cluster.site import OPEN_POLICY, SYSTEM, Certificates
from tests.node import images
from tests.node.ca import PodCA
from tests.node.node import Node
from tests.testbed import operators
from tests.testbed.api import Manifest
from tests.testbed.processes import until

REPLICAS = 2
_PATIENCE = 60.0  # a rollout of three pods takes a quarter of a minute where nobody else is at work


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSite(Certificates):
    """The installed chart and its CA."""

    plane: Node
    ca: PodCA
    patience: float = _PATIENCE

    def pods(self) -> list[Manifest]:
        """The operator's pods that are not about to go."""
        return self.plane.pods(SYSTEM, "app.kubernetes.io/name=certrenewal")

    def leader(self) -> str:
        """The pod that holds the Lease; empty while none does."""
        leases = self.plane.objects("leases.coordination.k8s.io", SYSTEM)
        holders = [lease["spec"].get("holderIdentity") or "" for lease in leases]
        names = (pod["metadata"]["name"] for pod in self.pods())
        return next((name for name in names if any(name in holder for holder in holders)), "")

    def await_leader(self, *, other_than: str = "") -> str:
        """Wait for a leader; its pod."""
        return until(lambda: self._leader_but(other_than), _PATIENCE, f"a leader other than {other_than!r}")

    def await_operator(self) -> None:
        """Wait until every replica is ready and one of them leads."""
        self.plane.await_rollout(SYSTEM, f"deployment/{SYSTEM}")
        self.await_leader()

    def log(self) -> str:
        """What all replicas have printed."""
        names = [pod["metadata"]["name"] for pod in self.pods()]
        return "".join(self.plane.logs(SYSTEM, name) for name in names)

    def _leader_but(self, pod: str) -> str:
        found = self.leader()
        return "" if found == pod else found


def values(ca: PodCA, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The chart's values for two replicas of the built image, with everything granted that tests make use of."""
    repository, _, tag = images.OPERATOR.removeprefix("docker.io/library/").partition(":")
    return {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "replicas": REPLICAS,
        "logLevel": "debug",
        "authority": ca.authority(policy=OPEN_POLICY),
        "restarts": {"signal": True, "verify": True, "cooldown": "1s"},
        "tokens": {"enabled": True},
        **(more or {}),
    }


def install(node: Node, ca: PodCA, more: Mapping[str, Any] | None = None) -> NodeSite:
    """The chart installed and ready, with its authority; ``more`` is laid over its values."""
    operators.install(node, SYSTEM, values=values(ca, more))
    site = NodeSite(plane=node, ca=ca)
    site.await_operator()
    node.kubectl("wait", "certauthority/default", "--for=condition=Ready", "--timeout=30s")
    return site
