"""A kill at any point costs no restart and no pair, and two replicas never act at once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cluster.site import LEASE, SYSTEM, Site, installed
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.controlplane import ControlPlane
from tests.testbed.faults import HttpProxy, api_proxy
from tests.testbed.operators import Operator
from tests.testbed.processes import until


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """The operator with a short Lease."""
    with installed(plane, make_ca(backdate="0s"), environment=LEASE) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path"),
    [("PATCH", r"/certrenewals/web-tls/status"), ("PATCH", r"/deployments/web\b")],
    ids=["between Secret and status", "between status and restart"],
)
def test_a_kill_between_writing_and_restarting_loses_no_restart(
    site: Site, namespace: str, slow_api: tuple[HttpProxy, Operator], method: str, path: str
) -> None:
    proxy, operator = slow_api
    site.order(namespace)
    first = site.await_ready(namespace)
    site.plane.create(manifests.deployment("web", namespace, manifests.volume("web-tls")))
    until(lambda: site.status(namespace).get("workloads"), 20, "the workload is known")
    site.await_rolled_out(namespace)

    held = proxy.delay(method, path, 3600)
    site.plane.annotate("certrenewals", namespace, "web-tls", renew_now="1")
    until(lambda: held.hits > 0, 20, "the operator is about to write")
    second = site.chain(namespace)
    operator.kill()
    proxy.remove(held)
    operator.start()
    site.await_condition(namespace, kind="RolledOut", status="True", reason="RolledOut")
    until(lambda: site.generation(namespace, "web") == 2, 30, "the restart")
    site.await_rolled_out(namespace)

    assert second.leaf.fingerprint != first.leaf.fingerprint
    mark = site.plane.get("deployments.apps", namespace, "web")["spec"]["template"]["metadata"]["annotations"]
    assert mark["certificate.certrenewal.dev/web-tls"] == site.chain(namespace).leaf.fingerprint[:16]


def test_a_kill_after_the_first_certificate_restarts_those_that_began_without(
    site: Site, namespace: str, slow_api: tuple[HttpProxy, Operator]
) -> None:
    proxy, operator = slow_api
    site.plane.create(manifests.deployment("web", namespace, manifests.volume("web-tls")))
    held = proxy.delay("PATCH", r"/secrets/web-tls", 3600)
    site.order(namespace)
    until(lambda: held.hits > 0, 20, "the operator is about to write the Secret")
    proxy.remove(held)
    after = proxy.delay("PATCH", r"/certrenewals/web-tls/status", 3600)
    operator.kill()
    operator.start()
    until(lambda: "tls.crt" in site.secret(namespace).get("data", {}), 30, "the Secret is filled")
    until(lambda: after.hits > 0, 20, "the operator is about to write the status")
    operator.kill()
    proxy.remove(after)
    operator.start()

    until(lambda: site.generation(namespace, "web") == 2, 30, "the restart")
    site.await_rolled_out(namespace)


@pytest.mark.parametrize("fault", ["cut after", "cut before", "409", "500"])
def test_a_failed_patch_costs_no_second_certificate(
    site: Site, namespace: str, slow_api: tuple[HttpProxy, Operator], fault: str
) -> None:
    proxy, _ = slow_api
    path = r"/secrets/web-tls\b"
    match fault:
        case "cut after":
            rule = proxy.cut_after("PATCH", path)
        case "cut before":
            rule = proxy.cut_before("PATCH", path)
        case _:
            rule = proxy.answer("PATCH", path, int(fault), '{"kind":"Status","message":"injected"}')
    before = site.calls()

    site.order(namespace)
    site.await_ready(namespace)
    until(lambda: site.events(namespace, reason="Issued"), 10, "told")

    assert rule.hits == 1
    assert site.calls() == before + 1
    assert len(site.events(namespace, reason="Issued")) == 1


def test_a_wish_that_the_answer_to_a_status_shows_before_the_watch_does_is_met(
    site: Site, namespace: str, slow_api: tuple[HttpProxy, Operator]
) -> None:
    proxy, _ = slow_api
    names = [f"web.{namespace}.svc", f"api.{namespace}.svc"]
    site.plane.create(manifests.cert_renewal("web-tls", namespace, {"secretName": "web-tls", "names": names[:1]}))
    site.await_ready(namespace)
    proxy.hold_streams(r"/certrenewals\?.*watch=true")

    site.plane.merge_patch("certrenewals", namespace, "web-tls", {"spec": {"names": names}})
    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    until(lambda: {*site.status(namespace)["certificate"]["names"]} == {*names}, 20, "a certificate for both names")
    reasons = [entry["reason"] for entry in site.status(namespace)["history"]]
    proxy.release_streams()

    assert reasons == ["NamesChanged", "RenewalRequested", "Missing"]


def test_a_certificate_put_in_between_is_not_overwritten(
    site: Site, namespace: str, slow_api: tuple[HttpProxy, Operator]
) -> None:
    proxy, _ = slow_api
    crt, key = site.ca.certificate(f"web-tls.{namespace}.svc")
    held = proxy.delay("PATCH", r"/secrets/web-tls\b", 1, times=1)
    site.order(namespace)
    until(lambda: held.hits > 0, 20, "the operator is about to write")

    data = {"tls.crt": manifests.encoded(crt), "tls.key": manifests.encoded(key)}
    site.plane.merge_patch("secrets", namespace, "web-tls", {"data": data})
    site.await_condition(namespace, status="True", reason="Adopted")

    assert {name: site.secret(namespace)["data"][name] for name in data} == data


def test_the_data_of_secrets_is_in_no_list_and_no_watch(
    site: Site, namespace: str, slow_api: tuple[HttpProxy, Operator]
) -> None:
    proxy, operator = slow_api
    site.plane.create(manifests.secret("large", namespace, {"noise": secrets.token_hex(250_000)}))
    operator.restart()
    site.plane.annotate("secrets", namespace, "large", seen="true")
    site.order(namespace)
    site.await_ready(namespace)

    streams = [seen for seen in proxy.requests if seen.path.startswith("/api/v1/secrets?")]

    assert {"watch=true" in seen.path for seen in streams} == {True, False}
    assert max(seen.size for seen in streams) < 250_000


def test_cut_watches_are_taken_up_again(site: Site, namespace: str, slow_api: tuple[HttpProxy, Operator]) -> None:
    proxy, _ = slow_api

    assert proxy.cut_streams(r"watch=true") >= 5

    site.order(namespace)
    site.await_ready(namespace)


def test_of_two_replicas_one_acts_and_the_other_takes_over_from_a_clean_stop(site: Site, namespace: str) -> None:
    standby = Operator(site.plane, SYSTEM, environment=LEASE)
    standby.start()
    try:
        site.order(namespace, "first")
        site.await_ready(namespace, "first")
        leaders = [replica.metric("certrenewal_leader") for replica in (site.operator, standby)]
        assert leaders == [1, 0]
        assert standby.metric("certrenewal_renewals_total") == 0

        site.operator.stop()
        until(lambda: standby.metric("certrenewal_leader") == 1, 3, "the standby leads before the Lease runs out")
        site.order(namespace, "second")
        site.await_ready(namespace, "second")

        assert standby.metric("certrenewal_renewals_total") == 1
    finally:
        standby.stop()
        site.operator.start()


def test_a_standby_takes_over_from_a_killed_leader_and_a_woken_one_acts_no_more(site: Site, namespace: str) -> None:
    standby = Operator(site.plane, SYSTEM, environment=LEASE)
    standby.start()
    try:
        until(lambda: site.operator.metric("certrenewal_leader") == 1, 20, "the first one leads")
        site.operator.process.pause()
        site.order(namespace, "first")
        site.await_condition(namespace, "first", status="True")
        calls = site.calls()
        site.operator.process.resume()
        until(lambda: site.operator.metric("certrenewal_leader") == 0, 20, "the woken one knows")

        assert standby.metric("certrenewal_leader") == 1
        assert site.calls() == calls
        assert len(site.events(namespace, "first", "Issued")) == 1
    finally:
        standby.stop()


def test_a_standby_writes_nothing(site: Site, namespace: str, tmp_path: Path) -> None:
    with (
        api_proxy(site.plane, tmp_path) as proxy,
        Operator(site.plane, SYSTEM, through=proxy, environment=LEASE) as standby,
    ):
        until(lambda: standby.metric("certrenewal_authority_ready", authority="default") == 1, 20, "it knows the CA")
        site.plane.create(manifests.deployment("web", namespace, manifests.volume("web-tls")))
        site.order(namespace)
        site.await_ready(namespace)
        site.await_rolled_out(namespace)

        assert [(seen.method, seen.path) for seen in proxy.requests if seen.method != "GET"] == []


def test_a_leader_that_loses_its_lease_while_it_waits_signs_nothing(
    site: Site, namespace: str, slow_api: tuple[HttpProxy, Operator]
) -> None:
    proxy, late = slow_api
    until(lambda: late.metric("certrenewal_leader") == 1, 20, "it leads")
    site.plane.create(manifests.deployment("web", namespace, manifests.volume("web-tls")))
    with Operator(site.plane, SYSTEM, environment=LEASE):
        # It has read the empty Secret, notes who is to be restarted, and gets no answer before others lead.
        held = proxy.delay("PATCH", r"/certrenewals/web-tls/status", 7)
        before, looks = site.calls(), late.metric("certrenewal_look_seconds_count")
        site.order(namespace)
        until(lambda: held.hits > 0, 20, "it writes")
        proxy.delay("*", r"/leases/", 3600)
        until(lambda: site.calls() == before + 1, 20, "another signs")
        until(lambda: late.metric("certrenewal_look_seconds_count") > looks, 20, "the late answer")

        assert site.calls() == before + 1


def test_a_clean_stop_finishes_what_was_signed(
    site: Site, namespace: str, slow_api: tuple[HttpProxy, Operator]
) -> None:
    proxy, operator = slow_api
    held = proxy.delay("PATCH", r"/secrets/web-tls", 2)
    before = site.calls()
    site.order(namespace)
    until(lambda: held.hits > 0, 20, "the operator is about to write")

    assert operator.stop() == 0

    proxy.remove(held)
    site.chain(namespace)
    operator.start()
    site.await_ready(namespace)
    assert site.calls() == before + 1


def test_a_restarted_operator_reads_and_asks_nothing_that_has_not_changed(site: Site, namespace: str) -> None:
    site.order(namespace, "one")
    site.order(namespace, "two")
    for name in ("one", "two"):
        site.await_ready(namespace, name)
    site.operator.stop()
    calls, started = site.calls(), datetime.now(UTC)

    site.operator.start()
    until(lambda: site.operator.metric("certrenewal_leader") == 1, 20, "it leads")
    until(lambda: site.operator.metric("certrenewal_look_seconds_count") >= 2, 20, "it looked")
    touched = [record for record in site.requests(namespace, started) if record["verb"] != "watch"]

    assert touched == []
    assert site.calls() == calls
