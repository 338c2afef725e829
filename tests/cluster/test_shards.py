"""Several releases share a cluster and its authorities, each with namespaces, a Lease and rights of its own."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from tests.cluster.site import PASSWORD_SECRET, SYSTEM, Site, authority, prepare, sweep
from tests.conftest import MakeCA
from tests.testbed import manifests, operators
from tests.testbed.api import ApiError
from tests.testbed.controlplane import ControlPlane
from tests.testbed.operators import Operator
from tests.testbed.processes import until

SECOND = "certrenewal-second"
# As docs/operations.md has it: the authority is the other release's, and its password is to be read all the same.
VALUES = {
    "crds": {"enabled": False},
    "watchNamespaces": ["shard-two"],
    "authority": {"provisioner": {"passwordSecretRef": {"namespace": SYSTEM, "name": PASSWORD_SECRET}}},
}


@pytest.fixture(scope="module")
def shards(plane: ControlPlane, make_ca: MakeCA) -> Iterator[tuple[Site, Site]]:
    """Two releases, each with a namespace that the other does not watch."""
    ca = make_ca(backdate="0s")
    prepare(plane, ca)
    for name in ("shard-one", "shard-two"):
        plane.create(manifests.namespace(name))
    operators.install(plane, SYSTEM, values={"authority": authority(ca), "watchNamespaces": ["shard-one"]})
    operators.install(plane, SECOND, values=VALUES)
    try:
        with Operator(plane, SYSTEM) as one, Operator(plane, SECOND) as two:
            yield Site(plane=plane, ca=ca, operator=one), Site(plane=plane, ca=ca, operator=two)
    finally:
        for namespace in (SECOND, SYSTEM):
            operators.uninstall(plane, namespace)
        sweep(plane)


def test_each_release_fills_the_secrets_of_its_own_namespaces_once(shards: tuple[Site, Site]) -> None:
    one, two = shards
    one.order("shard-one")
    two.order("shard-two")

    one.await_ready("shard-one")
    two.await_ready("shard-two")

    assert one.ca.count("/sign") == 2
    for site, namespace in ((one, "shard-one"), (two, "shard-two")):
        until(functools.partial(site.events, namespace, reason="Issued"), 10, "told")
        (issued,) = site.events(namespace, reason="Issued")
        assert issued["reportingInstance"] == site.operator.identity


def test_no_release_disputes_what_another_says_of_the_authority(shards: tuple[Site, Site]) -> None:
    one, two = shards
    for site, namespace in ((one, "shard-one"), (two, "shard-two")):
        site.order(namespace, "other-tls")
        site.await_ready(namespace, "other-tls")  # each is through with its own look at the authority

    found = one.plane.get("certauthorities", "", "default")

    def told() -> set[str]:
        events = one.events("default", "default")
        return {event["reason"] for event in events if event["regarding"].get("uid") == found["metadata"]["uid"]}

    until(told, 10, "told")
    assert told() == {"Ready"}
    conditions = {(c["type"], c["status"]) for c in found["status"]["conditions"]}
    assert conditions == {("Ready", "True"), ("ClockInSync", "True")}


def test_a_release_has_no_right_on_the_secrets_of_another(shards: tuple[Site, Site]) -> None:
    _, two = shards
    account = two.plane.account(SECOND, two.operator.account)

    assert account.get("secrets", SYSTEM, PASSWORD_SECRET)
    for refused in (("secrets", "shard-one", "web-tls"), ("secrets", SYSTEM, "another")):
        with pytest.raises(ApiError) as refusal:
            account.get(*refused)
        assert refusal.value.status == 403
