"""Restarts keep to their budget and cool-down, the nearest expiry first, and no certificate ends in a pod for that."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.cluster.site import Site, installed
from tests.cluster.workloads import await_workload, order, renewed, restarts, settled, workloads
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.controlplane import ControlPlane
from tests.testbed.processes import until

COOLDOWN = 5
AT_ONCE = 4  # a quarter of what a namespace may have in a minute
WEB_TLS = manifests.volume("web-tls")


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """The operator with a small budget for each namespace, and a short Lease, as it is killed here."""
    limits = {"perMinute": 60000, "perMinuteInNamespace": 4 * AT_ONCE, "cooldown": f"{COOLDOWN}s"}
    with installed(
        plane,
        make_ca(backdate="0s"),
        values={"restarts": limits},
        environment={"CERTRENEWAL_LEASE_DURATION": "5s"},
    ) as running:
        yield running


def queue(site: Site) -> float:
    """How many workloads wait, as metrics tell."""
    return site.operator.metric("certrenewal_restart_queue_length")


def test_no_more_than_the_budget_goes_at_once_and_then_the_nearest_expiry_first(site: Site, namespace: str) -> None:
    names = [f"w{number}" for number in range(AT_ONCE + 4)]
    for name in names:
        # The later in the alphabet, the sooner its certificate ends.
        site.order(namespace, name, duration=f"{20 - names.index(name)}h")
    for name in names:
        site.await_ready(namespace, name)
        site.plane.create(manifests.deployment(name, namespace, manifests.volume(name)))
    until(lambda: all(workloads(site, namespace, name) == {name: ("Healthy", "")} for name in names), 20, "all known")
    started = datetime.now(UTC)
    renewed(site, namespace, *names)

    until(lambda: len(order(site, namespace, started)) == AT_ONCE, 20, "what goes at once")
    until(lambda: queue(site) == len(names) - AT_ONCE, 10, "the others in the queue")
    waiting = sorted(set(names) - set(order(site, namespace, started)))
    states = {name: workloads(site, namespace, name)[name][0] for name in waiting}
    deadline = site.operator.metric("certrenewal_restart_queue_first_expiry_timestamp_seconds")
    until(lambda: len(order(site, namespace, started)) == len(names), 40, "every restart")

    assert order(site, namespace, started)[AT_ONCE:] == waiting[::-1]
    assert states == dict.fromkeys(waiting, "Pending")
    assert deadline > datetime.now(UTC).timestamp()
    until(lambda: queue(site) == 0, 10, "an empty queue")


def test_no_budget_lets_a_certificate_end_in_a_running_pod(site: Site, namespace: str) -> None:
    names = [f"w{number:02}" for number in range(AT_ONCE + 6)]
    started = datetime.now(UTC)
    settled(site, namespace, *(manifests.deployment(name, namespace, WEB_TLS) for name in names), duration="20s")
    first = site.chain(namespace)

    site.await_new(namespace, after=first)
    until(lambda: set(order(site, namespace, started)) == set(names), 30, "every restart")
    moments = restarts(site, namespace, started)
    site.plane.annotate("secrets", namespace, "web-tls", renew="false")

    last = max(min(moment for name, moment in moments if name == each) for each in names)
    assert last < first.leaf.not_after


def test_renewing_again_and_again_restarts_no_more_often_than_the_cooldown(site: Site, namespace: str) -> None:
    settled(site, namespace, manifests.deployment("web", namespace, WEB_TLS))
    started = datetime.now(UTC)
    for number in range(8):
        renewed(site, namespace, value=str(number))
    until(lambda: site.events(namespace, "web", "RestartDelayed"), 20, "a Warning")
    site.await_rolled_out(namespace)

    moments = [moment for _, moment in restarts(site, namespace, started)]
    gaps = [(late - early).total_seconds() for early, late in itertools.pairwise(moments)]
    (warning,) = site.events(namespace, "web", "RestartDelayed")
    assert gaps
    assert min(gaps) >= COOLDOWN
    assert len(moments) < 8
    assert warning["type"] == "Warning"
    assert f"restarts.cooldown ({COOLDOWN}s)" in warning["note"]


def test_a_kill_loses_nobody_who_waits_and_restarts_nobody_twice(site: Site, namespace: str) -> None:
    names = [f"w{number}" for number in range(AT_ONCE + 4)]
    settled(site, namespace, *(manifests.deployment(name, namespace, WEB_TLS) for name in names))
    started = datetime.now(UTC)
    renewed(site, namespace)
    until(lambda: len(order(site, namespace, started)) == AT_ONCE, 20, "what goes at once")
    waiting = set(names) - set(order(site, namespace, started))
    for name in waiting:
        await_workload(site, namespace, name, "Pending")

    site.operator.kill()
    site.operator.start()

    until(lambda: set(order(site, namespace, started)) == set(names), 30, "every restart")
    site.await_rolled_out(namespace)
    assert sorted(order(site, namespace, started)) == names
    assert {name: site.generation(namespace, name) for name in names} == dict.fromkeys(names, 2)
