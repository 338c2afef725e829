"""What do clients notice when leader, kubelet, CA or a rollout fails in the middle of a renewal? Nothing."""

from __future__ import annotations

import secrets
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from certrenewal.domain.certificate import Chain, fingerprint, load_certificates, parse_chain
from certrenewal.domain.status import moment_of
from tests.cluster.site import OPEN_POLICY, SYSTEM, condition_of
from tests.node import stories, traffic
from tests.node.ca import PASSWORD, URL, PodCA
from tests.node.node import Node
from tests.node.site import NodeSite
from tests.node.traffic import NEVER, Plan, Stand
from tests.testbed import manifests
from tests.testbed.processes import until
from tests.testbed.stepca import Issuer

PLANS = (
    Plan(name="crew", wish={"authority": "slow"}),
    Plan(name="still"),
    Plan(name="idle", reload="watch", annotations=NEVER),
    Plan(name="brief", reload="watch", annotations=NEVER),
    Plan(name="fragile"),
    Plan(name="rooted"),
)
CROWD = 20
SLOW = {"concurrency": 2, "requestsPerSecond": 4}
DEADLINE = 8  # seconds until a Deployment calls its rollout failed
PATIENCE = 90


@pytest.fixture(scope="module")
def stands(node: Node, certrenewal: NodeSite, ca: PodCA) -> Iterator[dict[str, Stand]]:
    """A server for each of these stories, and an authority that lets few in, so that a crowd takes its time."""
    node.create(slow_authority(ca))
    with traffic.shop(node, "failures") as namespace:
        yield traffic.stage(certrenewal, namespace, *PLANS)
    node.delete("certauthorities", "", "slow")


def slow_authority(ca: PodCA) -> dict[str, object]:
    """The same CA, asked a few times a second and no more."""
    spec = {
        "url": URL,
        "fingerprint": ca.fingerprint,
        "provisioner": {"name": ca.provisioner, "passwordSecretRef": PASSWORD},
        "limits": SLOW,
    }
    about = {"apiVersion": manifests.API_VERSION, "kind": "CertAuthority", "metadata": {"name": "slow"}}
    return {**about, "spec": spec}


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Many certificates of the slow authority, one of them served."""

    stand: Stand
    names: tuple[str, ...]

    def chains(self) -> dict[str, Chain]:
        """All of them, each proven to fit its key and to be valid now."""
        return {name: self.stand.site.chain(self.stand.namespace, name) for name in self.names}

    def renew(self) -> None:
        """Ask for all anew, the served one first."""
        value = datetime.now(UTC).isoformat()
        for name in self.names:
            self.stand.site.plane.annotate("secrets", self.stand.namespace, name, renew_now=value)

    def await_told(self, before: dict[str, Chain], least: int) -> set[str]:
        """Wait, as somebody who reads every Secret meanwhile, until so many are told to be new; those."""

        def told() -> set[str]:
            self.chains()
            found = self.told(before)
            return found if len(found) >= least else set()

        return until(told, PATIENCE, f"{least} new certificates")

    def told(self, before: dict[str, Chain]) -> set[str]:
        """Those whose status tells of another certificate than before."""
        serials = {
            found["metadata"]["name"]: found["status"]["certificate"]["serial"]
            for found in self.stand.site.plane.objects("certrenewals", self.stand.namespace)
        }
        return {name for name, chain in before.items() if serials[name] != chain.leaf.serial}


@pytest.fixture(scope="module")
def crowd(stands: dict[str, Stand]) -> Crowd:
    """They are there."""
    stand = stands["crew"]
    others = [f"crowd-{number:02}" for number in range(CROWD - 1)]
    for name in others:
        stand.site.order(stand.namespace, name, authority="slow")
    for name in others:
        stand.site.await_ready(stand.namespace, name)
    return Crowd(stand=stand, names=(stand.secret, *others))


def delete_pod(node: Node, pod: str) -> None:
    """As kubectl does."""
    node.delete("pods", SYSTEM, pod)


def kill_pod(node: Node, pod: str) -> None:
    """As the kernel does where memory is short."""
    node.kill_pod(SYSTEM, pod)


@pytest.mark.parametrize("end", [delete_pod, kill_pod])
def test_a_leader_that_ends_in_mid_renewal_loses_nothing(
    node: Node, certrenewal: NodeSite, ca: PodCA, crowd: Crowd, end: Callable[[Node, str], None]
) -> None:
    """What a killed one was asking for, or had not told of yet, is asked for once more, and nothing else."""
    stand, before, seen = crowd.stand, crowd.chains(), len(ca.calls())
    began, generation = datetime.now(UTC).isoformat(), certrenewal.generation(stand.namespace, stand.plan.name)
    leader, taken = certrenewal.await_leader(), acquired(node)

    crowd.renew()
    crowd.await_told(before, 2)
    end(node, leader)
    told = {before[name].leaf.subject for name in crowd.told(before)}
    crowd.await_told(before, CROWD)
    heir = acquired(node)
    stand.await_rolled_out()
    last = crowd.chains()
    met = stand.await_only(last[stand.secret])

    subjects = {chain.leaf.subject for chain in before.values()}  # the heir's token endpoint gets a certificate too
    signed = [call for call in ca.calls()[seen:] if (call["method"], call["status"]) == ("POST", 201)]
    issued = [call for call in signed if call["subject"] in subjects]
    times = Counter(call["subject"] for call in issued)
    twice = {name for name, number in times.items() if number > 1}
    under_way = {call["subject"] for call in issued if call["time"] < heir} - told
    assert len(told) < CROWD
    assert heir > taken
    assert len(times) == CROWD
    assert times.total() == CROWD + len(twice)
    assert twice <= (under_way if end is kill_pod else set())
    assert certrenewal.generation(stand.namespace, stand.plan.name) == generation + 1
    assert stories.failed(met) == []
    assert {meeting.decimal for meeting in met if meeting.at >= began} == {
        chains[stand.secret].leaf.serial for chains in (before, last)
    }
    certrenewal.await_operator()


def acquired(node: Node) -> str:
    """When the Lease was taken last."""
    (lease,) = node.objects("leases.coordination.k8s.io", SYSTEM)
    return str(lease["spec"]["acquireTime"])


def test_a_kubelet_that_stands_still_delays_the_rollout_and_nothing_else(node: Node, stands: dict[str, Stand]) -> None:
    still, idle = stands["still"], stands["idle"]
    lives = still.lives()
    kubelet = node.process("kubelet")

    kubelet.kill()
    try:
        for stand in (still, idle):
            stand.renew()
        new = {stand: stand.await_new() for stand in (still, idle)}
        message = still.await_condition("RolledOut", "False", "Restarting")
        until(lambda: len(node.objects("pods", still.namespace, "app=still")) > len(lives), 30, "a pod that waits")
        shown = [served(node, stand) for stand in (still, idle)]
    finally:
        kubelet.start()
    still.await_rolled_out()

    assert "still" in message
    assert shown == [still.first.leaf.serial, idle.first.leaf.serial]
    still.assert_unnoticed(new[still])
    idle.assert_unnoticed(new[idle])
    assert lives.keys().isdisjoint(still.lives())


def served(node: Node, stand: Stand) -> str:
    """The serial behind its Service."""
    address = node.get("services", stand.namespace, stand.plan.name)["spec"]["clusterIP"]
    return parse_chain(ssl.get_server_certificate((address, 443), timeout=5).encode()).leaf.serial


def test_a_ca_that_is_down_when_short_certificates_are_due_costs_none(
    node: Node, ca: PodCA, stands: dict[str, Stand]
) -> None:
    stand = stands["brief"]
    node.annotate("secrets", stand.namespace, stand.secret, duration="75s", renew_before="85%")
    short = stand.await_new()
    ca.stop()
    try:
        message = stand.await_condition("Ready", "True", "AuthorityUnreachable")
        held = stand.site.chain(stand.namespace, stand.secret)
        due = moment_of(stand.site.status(stand.namespace, stand.secret)["renewalTime"])
        now = datetime.now(UTC)
    finally:
        ca.resume()
    until(lambda: stand.site.condition(stand.namespace, stand.secret) == ("True", "Renewed"), PATIENCE, "renewed")
    new = stand.site.chain(stand.namespace, stand.secret)
    node.annotate("secrets", stand.namespace, stand.secret, duration="24h", renew_before=None)
    last = stand.site.await_new(stand.namespace, stand.secret, after=new)
    met = stand.await_only(last)

    assert URL in message
    assert due is not None
    assert due < now < held.leaf.not_after
    assert held.leaf.lifetime == short.leaf.lifetime
    assert new.leaf.not_before < held.leaf.not_after
    assert stories.failed(met) == []
    assert held.leaf.serial in {meeting.decimal for meeting in met}


def test_a_rollout_that_fails_is_told_while_the_old_pods_serve(node: Node, stands: dict[str, Stand]) -> None:
    """What broke in the meantime, a program here, shows when pods are made anew."""
    stand = stands["fragile"]
    lives = stand.lives()
    broken = {"spec": {"progressDeadlineSeconds": DEADLINE}}
    node.merge_patch("deployments.apps", stand.namespace, stand.plan.name, broken)
    program = node.get("configmaps", stand.namespace, "apps")["data"]["server.py"]
    node.merge_patch("configmaps", stand.namespace, "apps", {"data": {"server.py": "raise SystemExit('broken')"}})

    stand.renew()
    new = stand.await_new()
    message = stand.await_condition("RolledOut", "False", "RestartFailed")
    ready = stand.site.condition(stand.namespace, stand.secret)
    state, words = stand.standing()
    old = {uid: count for uid, count in stand.lives().items() if uid in lives}
    crashed = [pod["metadata"]["name"] for pod in stand.pods() if pod["metadata"]["uid"] not in lives]
    met = stand.await_only(stand.first)
    node.merge_patch("configmaps", stand.namespace, "apps", {"data": {"server.py": program}})
    for name in crashed:
        node.delete("pods", stand.namespace, name)
    stand.await_rolled_out()

    assert "Deployment/fragile" in message
    assert "has timed out progressing" in words
    assert (state, ready) == ("Failed", ("True", "Renewed"))
    assert old == lives
    assert len(crashed) == 1
    assert {meeting.decimal for meeting in met} == {stand.first.leaf.serial}
    assert stand.site.events(stand.namespace, stand.secret, reason="RestartFailed")
    stand.assert_unnoticed(new)


@pytest.fixture
def roots(node: Node, ca: PodCA) -> Iterator[tuple[Issuer, Issuer]]:
    """The root that the CA has, and the one that is to follow it; afterwards the CA has the first again."""
    old = ca.files.first_issuer
    yield old, ca.files.make_issuer(f"Next-{secrets.token_hex(2)}")
    ca.issue_by(old, roots=[old])
    look(node, pin=ca.fingerprint)


def look(node: Node, *, pin: str) -> None:
    """Have the operator look at the CA now, as it does every five minutes, and find it trusted."""
    value = secrets.token_hex(4)
    rule = {"namespaces": [value], "names": [f"{value}.example.net"]}
    node.merge_patch("certauthorities", "", "default", {"spec": {"fingerprint": pin, "policy": [*OPEN_POLICY, rule]}})

    def trusted() -> bool:
        found = node.get("certauthorities", "", "default")
        ready = condition_of(found["status"], "Ready")
        return bool(ready["status"] == "True" and ready["observedGeneration"] == found["metadata"]["generation"])

    until(trusted, PATIENCE, f"the CA trusted by root {pin}")


def root_of(issuer: Issuer) -> str:
    """The fingerprint of its root."""
    return fingerprint(load_certificates(issuer.root_file.read_bytes())[0])


def bring_roots(node: Node, stand: Stand, wanted: set[str]) -> None:
    """Wait until the ConfigMap has these roots, and have the kubelet show it to the client now, not within 90 s."""
    namespace, pod = stand.namespace, stand.client

    def listed(text: str) -> bool:
        return {fingerprint(root) for root in load_certificates(text.encode())} == wanted

    until(lambda: listed(node.get("configmaps", namespace, stories.ROOTS)["data"]["ca.crt"]), PATIENCE, "the roots")
    node.merge_patch("pods", namespace, pod, {"metadata": {"annotations": {"touched": secrets.token_hex(4)}}})
    until(lambda: listed(node.exec(namespace, pod, "cat", "/roots/ca.crt")), PATIENCE, "the client has the roots")


def test_a_root_is_replaced_under_live_traffic(
    node: Node, ca: PodCA, stands: dict[str, Stand], roots: tuple[Issuer, Issuer]
) -> None:
    """Announced beside the old one, then signing, then alone: clients have both as long as either is in use."""
    stand, (old, new) = stands["rooted"], roots
    before, after = root_of(old), root_of(new)

    ca.issue_by(old, roots=[old], federated=[new])
    look(node, pin=before)
    bring_roots(node, stand, {before, after})
    ca.issue_by(new, roots=[new], federated=[old])
    look(node, pin=before)
    stand.renew()
    renewed = stand.await_new()
    stand.await_rolled_out()
    look(node, pin=after)
    ca.issue_by(new, roots=[new])
    look(node, pin=after)
    bring_roots(node, stand, {before, after})

    assert renewed.certificates[-1] == load_certificates(new.intermediate_file.read_bytes())[0]
    assert stand.first.certificates[-1] == load_certificates(old.intermediate_file.read_bytes())[0]
    stand.assert_unnoticed(renewed)
