"""Does nobody notice renewals of any kind of workload, all at once: restarted, told, or left to its own devices?"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from certrenewal.domain.certificate import Chain, parse_chain
from tests.cluster.site import SYSTEM, condition_of
from tests.node import stories, traffic
from tests.node.node import Node
from tests.node.site import NodeSite
from tests.node.traffic import NEVER, SIGNAL, Plan, Stand
from tests.testbed.api import Manifest
from tests.testbed.cluster import account_name
from tests.testbed.processes import until

PLANS = (
    Plan(name="db", kind="StatefulSet", replicas=3),
    Plan(name="watch", reload="watch", annotations=NEVER),
    Plan(name="signal", reload="signal", annotations=SIGNAL),
    Plan(name="api", mutual=True),
    Plan(name="stale", annotations=NEVER),
)
VERIFIED = ("db", "stale")
TLS_PORT = 8443
PATIENCE = 90
SOON = 10  # seconds, where a kubelet that nobody nudges takes up to ninety
MARK = "certificate.certrenewal.dev/watch-tls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """The servers of this module, as they were when all their certificates were asked for anew."""

    stands: dict[str, Stand]
    began: datetime
    lives: dict[str, dict[str, int]]
    caller: Chain
    farewell: Future[str]


@pytest.fixture(scope="module")
def market(node: Node, certrenewal: NodeSite) -> Iterator[Market]:
    """Servers of every kind, whose certificates are all asked for anew at the same moment."""
    # The namespace goes first: what follows a pod's log ends with the pod.
    with ThreadPoolExecutor() as followers, traffic.shop(node, "market") as namespace:
        stands = traffic.stage(certrenewal, namespace, *PLANS)
        for name in VERIFIED:
            node.annotate("secrets", namespace, stands[name].secret, verify="443")
        for name in VERIFIED:
            stands[name].await_condition("Serving", "True")
        (caller,) = node.pods(namespace, f"app={stands['api'].client}")
        path = stories.log_path(namespace, caller["metadata"]["name"], follow="true")
        made = Market(
            stands=stands,
            began=datetime.now(UTC),
            lives={name: stand.lives() for name, stand in stands.items()},
            caller=certrenewal.chain(namespace, "api-client-tls"),
            farewell=followers.submit(node.raw, "GET", path),
        )
        for stand in stands.values():
            stand.renew()
        node.annotate("secrets", namespace, "api-client-tls", renew_now="1")
        yield made


def loads(node: Node, pod: Manifest) -> list[datetime]:
    """When a server took in new files."""
    about = pod["metadata"]
    log = node.raw("GET", stories.log_path(about["namespace"], about["name"], timestamps="true"))
    lines = [line.partition(" ") for line in log.splitlines()]
    return [datetime.fromisoformat(at) for at, _, text in lines if json.loads(text)["event"] == "loaded"]


def written(node: Node, stand: Stand, since: datetime) -> datetime:
    """When the operator wrote the Secret."""
    user = account_name(SYSTEM, SYSTEM)
    (found,) = (
        datetime.fromisoformat(record["stageTimestamp"])
        for record in node.audit(user, since=since)
        if record["verb"] == "patch"
        and record["objectRef"]["resource"] == "secrets"
        and (record["objectRef"]["namespace"], record["objectRef"]["name"]) == (stand.namespace, stand.secret)
    )
    return found


def served(pod: Manifest) -> str:
    """The serial that a pod shows now."""
    pem = ssl.get_server_certificate((pod["status"]["podIP"], TLS_PORT), timeout=5)
    return parse_chain(pem.encode()).leaf.serial


def asked_anew(stand: Stand, verify: str) -> tuple[str, str, str]:
    """Change the wish, so that servers are asked now and not in up to five minutes: status, reason, message."""
    before = serving(stand)["observedGeneration"]
    stand.site.plane.annotate("secrets", stand.namespace, stand.secret, verify=verify)

    def answered() -> bool:
        found = serving(stand)
        return found["status"] != "Unknown" and bool(found["observedGeneration"] > before)

    until(answered, PATIENCE, f"Serving of {stand.secret} for {verify}")
    found = serving(stand)
    return found["status"], found["reason"], found["message"]


def serving(stand: Stand) -> Manifest:
    """The condition."""
    return condition_of(stand.site.status(stand.namespace, stand.secret), "Serving")


def replace_pod(stand: Stand, pod: Manifest) -> None:
    """Delete one of its pods; another is an endpoint in its place."""
    name = pod["metadata"]["name"]
    stand.site.plane.delete("pods", stand.namespace, name)
    until(
        lambda: name not in endpoints(stand) and len(endpoints(stand)) == stand.plan.replicas, PATIENCE, f"not {name}"
    )


def endpoints(stand: Stand) -> set[str]:
    """The ready pods behind its Service."""
    slices = stand.site.plane.objects(
        "endpointslices.discovery.k8s.io", stand.namespace, f"kubernetes.io/service-name={stand.plan.name}"
    )
    found = (endpoint for piece in slices for endpoint in piece.get("endpoints") or ())
    return {endpoint["targetRef"]["name"] for endpoint in found if endpoint["conditions"]["ready"]}


def test_files_come_at_once_to_servers_that_watch_them(
    node: Node, market: Market, record_property: Callable[[str, object], None]
) -> None:
    stand = market.stands["watch"]
    new = stand.await_new()
    until(lambda: all(loads(node, pod) for pod in stand.pods()), PATIENCE, "both servers have new files")
    stand.assert_unnoticed(new)

    at = written(node, stand, market.began)
    files = max(loads(node, pod)[0] for pod in stand.pods())
    met = stand.met()
    first = min(meeting.over for meeting in met if meeting.decimal == new.leaf.serial)
    last = max(meeting.over for meeting in met if meeting.decimal == stand.first.leaf.serial)
    for name, moment in (("both files", files), ("first served", first), ("last of the old", last)):
        seconds = round((moment - at).total_seconds(), 2)
        print(f"Secret → {name}: {seconds} s")
        record_property(f"seconds from Secret to {name}", seconds)

    assert (files - at).total_seconds() < SOON
    assert stand.lives() == market.lives["watch"]
    assert [len(loads(node, pod)) for pod in stand.pods()] == [1, 1]
    assert {pod["metadata"]["annotations"][MARK] for pod in stand.pods()} == {new.leaf.fingerprint[:16]}


def test_a_signal_through_exec_restarts_nothing(node: Node, market: Market) -> None:
    stand = market.stands["signal"]
    new = stand.await_new()
    stand.await_rolled_out()
    stand.assert_unnoticed(new)

    assert stand.standing() == ("Healthy", "")
    assert stand.lives() == market.lives["signal"]
    assert [len(loads(node, pod)) for pod in stand.pods()] == [1, 1]


def test_an_old_pod_is_told_until_the_last_endpoint_serves_the_new_certificate(node: Node, market: Market) -> None:
    stand = market.stands["stale"]
    new = stand.await_new()
    stand.await_condition("RolledOut", "True")
    both = stand.await_condition("Serving", "False", "ServingOther")
    old = stand.pods()
    warned = stand.site.events(stand.namespace, stand.secret, reason="ServingOther")

    replace_pod(stand, old[0])
    one = asked_anew(stand, "stale:443")
    replace_pod(stand, old[1])
    none = asked_anew(stand, "443")

    where = [f"{pod['status']['podIP']}:{TLS_PORT} (serial {stand.first.leaf.serial})" for pod in old]
    words = f"of 2 endpoints of Service stale serve serial {new.leaf.serial}"
    assert both.startswith(f"0 {words}; another certificate is served at ")
    assert all(pod in both for pod in where)
    assert [event["type"] for event in warned] == ["Warning"]
    assert one == ("False", "ServingOther", f"1 {words}; another certificate is served at {where[1]}")
    assert none == ("True", "Serving", f"2 {words}")
    stand.assert_unnoticed(new)


def test_both_ends_of_mutual_tls_are_renewed_at_once(node: Node, certrenewal: NodeSite, market: Market) -> None:
    stand = market.stands["api"]
    new = stand.await_new()
    caller = certrenewal.await_new(stand.namespace, "api-client-tls", after=market.caller)
    stand.await_rolled_out()
    certrenewal.await_rolled_out(stand.namespace, "api-client-tls")
    before = stand.since(stories.read_meetings(market.farewell.result(timeout=PATIENCE)))
    (pod,) = node.pods(stand.namespace, f"app={stand.client}")
    after: list[stories.Meeting] = []

    def settled() -> bool:
        after[:] = stories.meetings(node, stand.namespace, pod["metadata"]["name"])
        return {(meeting.decimal, meeting.shown) for meeting in after[-20:]} == {(new.leaf.serial, caller.leaf.serial)}

    until(settled, PATIENCE, "both ends show new certificates")
    assert stories.failed([*before, *after]) == []
    assert {meeting.decimal for meeting in [*before, *after]} == {stand.first.leaf.serial, new.leaf.serial}
    assert {meeting.shown for meeting in before} == {market.caller.leaf.serial}
    assert {meeting.shown for meeting in after} == {caller.leaf.serial}


def test_a_stateful_set_is_restarted_unnoticed_and_then_seen_to_serve(node: Node, market: Market) -> None:
    stand = market.stands["db"]
    new = stand.await_new()
    stand.await_rolled_out()
    message = stand.await_condition("Serving", "True")
    shown = [served(pod) for pod in stand.pods()]
    stand.assert_unnoticed(new)

    assert shown == [new.leaf.serial] * 3
    assert message == f"3 of 3 endpoints of Service db serve serial {new.leaf.serial}"
    assert market.lives["db"].keys().isdisjoint(stand.lives())
    assert {pod["metadata"]["name"] for pod in stand.pods()} == {"db-0", "db-1", "db-2"}
