"""Restarts come in waves, behind a canary, within windows and once for several certificates; what holds them is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from tests.cluster.site import SYSTEM, Site, installed
from tests.cluster.workloads import await_workload, order, renewed, restarts, settled, workloads
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.api import ApiError, Manifest
from tests.testbed.controlplane import ControlPlane, account_name
from tests.testbed.processes import until

WEB_TLS = manifests.volume("web-tls")


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """The operator without limits, so that nothing but what a test is about holds a restart."""
    free = {"perMinute": 60000, "cooldown": "0s"}
    with installed(plane, make_ca(backdate="0s"), values={"restarts": free}) as running:
        yield running


def web(namespace: str, name: str = "web", **annotations: str) -> Manifest:
    """A Deployment that uses web-tls, with annotations of ours."""
    return manifests.deployment(name, namespace, WEB_TLS, annotations=manifests.prefixed(**annotations))


def make_ready(site: Site, namespace: str, name: str, *, ready: bool) -> None:
    """Pods of a Deployment become ready from now on, or never."""
    label = {manifests.NEVER_READY: None if ready else "true"}
    change = {"spec": {"template": {"metadata": {"labels": label}}}}
    site.plane.merge_patch("deployments.apps", namespace, name, change)


# -- waves and the canary ------------------------------------------------------------------------------------------


def test_each_wave_begins_once_the_earlier_is_healthy(site: Site, namespace: str) -> None:
    waves = {"c": "10", "b": "0", "a": "-1"}
    settled(site, namespace, *(web(namespace, name, restart_order=wave) for name, wave in waves.items()))
    make_ready(site, namespace, "a", ready=False)
    started = datetime.now(UTC)
    renewed(site, namespace)

    await_workload(site, namespace, "b", "Pending", "after Deployment/a (wave -1)")
    await_workload(site, namespace, "a", "Restarting")
    assert (site.generation(namespace, "b"), site.generation(namespace, "c")) == (1, 1)
    assert site.condition(namespace, kind="RolledOut") == ("False", "RestartPending")

    make_ready(site, namespace, "a", ready=True)
    site.await_rolled_out(namespace)
    assert order(site, namespace, started) == ["a", "b", "c"]


def test_a_canary_goes_first_and_holds_the_others_back_when_it_fails(site: Site, namespace: str) -> None:
    canary = web(namespace, "canary", restart_canary="true", restart_order="99")
    canary["spec"]["progressDeadlineSeconds"] = 1
    settled(site, namespace, canary, web(namespace, "a"), web(namespace, "b", restart_order="-1"))
    make_ready(site, namespace, "canary", ready=False)
    started = datetime.now(UTC)
    renewed(site, namespace)

    words = "held back, as Deployment/canary (the canary) failed"
    await_workload(site, namespace, "canary", "Failed", "progress")
    for name in ("a", "b"):
        await_workload(site, namespace, name, "Pending", words)
    message = site.await_condition(namespace, kind="RolledOut", status="False", reason="RestartFailed")
    assert "Deployment/canary (" in message
    assert order(site, namespace, started) == ["canary"]
    until(lambda: site.events(namespace, reason="RestartFailed"), 10, "a Warning")

    make_ready(site, namespace, "canary", ready=True)
    site.await_rolled_out(namespace)
    assert order(site, namespace, started) == ["canary", "b", "a"]


def test_a_rollout_that_failed_is_not_restarted_again_for_the_same_certificate(site: Site, namespace: str) -> None:
    workload = web(namespace)
    workload["spec"]["progressDeadlineSeconds"] = 1
    settled(site, namespace, workload)
    make_ready(site, namespace, "web", ready=False)
    started = datetime.now(UTC)
    renewed(site, namespace)
    await_workload(site, namespace, "web", "Failed", "progress")

    site.operator.restart()
    site.order(namespace, "another-tls")
    site.await_ready(namespace, "another-tls")
    assert order(site, namespace, started) == ["web"]

    renewed(site, namespace, value="2")
    until(lambda: order(site, namespace, started) == ["web", "web"], 20, "a restart for the next certificate")


# -- windows -------------------------------------------------------------------------------------------------------


def closed() -> tuple[str, str]:
    """A window that is closed for twelve hours, and when it opens."""
    opens = (datetime.now(UTC) + timedelta(hours=12)).replace(minute=0, second=0, microsecond=0)
    return f"0 {opens.hour} * * * for 1h", opens.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("where", ["deployments.apps", "secrets"])
def test_a_restart_waits_for_its_window_and_says_until_when(site: Site, namespace: str, where: str) -> None:
    window, opens = closed()
    started = datetime.now(UTC)
    if where == "secrets":
        settled(site, namespace, web(namespace), restart_window=window)
    else:
        settled(site, namespace, web(namespace, restart_window=window))
    renewed(site, namespace)

    await_workload(site, namespace, "web", "Pending", f"its window opens at {opens}")
    assert order(site, namespace, started) == []

    name = "web-tls" if where == "secrets" else "web"
    site.plane.annotate(where, namespace, name, restart_window="* * * * * for 1h in Europe/Berlin")
    site.await_rolled_out(namespace)
    assert order(site, namespace, started) == ["web"]
    assert site.events(namespace, "web", "WindowMissed") == []


def test_no_window_lets_a_certificate_end_in_a_running_pod(site: Site, namespace: str) -> None:
    window, opens = closed()
    started = datetime.now(UTC)
    settled(site, namespace, web(namespace), duration="15s", restart_window=window)
    first = site.chain(namespace)

    site.await_new(namespace, after=first)
    await_workload(site, namespace, "web", "Pending", "its window opens")
    until(lambda: site.generation(namespace, "web") > 1, 20, "a restart outside the window")

    until(lambda: site.events(namespace, "web", "WindowMissed"), 10, "a Warning")
    (warning, *_) = site.events(namespace, "web", "WindowMissed")
    assert warning["type"] == "Warning"
    assert f"opens at {opens}" in warning["note"]
    assert restarts(site, namespace, started)[0][1] < first.leaf.not_after


# -- several certificates of one workload --------------------------------------------------------------------------

FIVE = [f"s{number}-tls" for number in range(5)]


def with_five(site: Site, namespace: str) -> None:
    """A Deployment with five certificates."""
    for name in FIVE:
        site.order(namespace, name)
    for name in FIVE:
        site.await_ready(namespace, name)
    site.plane.create(manifests.deployment("web", namespace, *map(manifests.volume, FIVE)))
    until(
        lambda: all(workloads(site, namespace, name) == {"web": ("Healthy", "")} for name in FIVE),
        20,
        "all of them run",
    )


def all_run(site: Site, namespace: str) -> bool:
    """Whether the pod template is marked with all five certificates."""
    found = site.plane.get("deployments.apps", namespace, "web")["spec"]["template"]["metadata"]
    marks: Manifest = found.get("annotations") or {}
    expected = [site.chain(namespace, name).leaf.fingerprint[:16] for name in FIVE]
    return [marks.get(f"certificate.certrenewal.dev/{name}") for name in FIVE] == expected


def test_five_certificates_renewed_at_once_are_one_restart(site: Site, namespace: str) -> None:
    with_five(site, namespace)

    renewed(site, namespace, *FIVE)
    until(lambda: all_run(site, namespace), 20, "all five in the pod template")

    assert site.generation(namespace, "web") == 2


def test_five_certificates_renewed_one_after_the_other_are_one_restart(site: Site, namespace: str) -> None:
    with_five(site, namespace)

    for name in FIVE:
        renewed(site, namespace, name)
    until(lambda: all_run(site, namespace), 20, "all five in the pod template")

    assert site.generation(namespace, "web") == 2


def test_a_certificate_that_is_nearly_due_is_renewed_with_its_sibling(site: Site, namespace: str) -> None:
    # Due 12.7 to 14 s after they were issued, and 14.1 to 15.3 s; a tenth of their life is 4 s.
    wishes = {"web-tls": "26s", "other-tls": "24.7s"}
    for name, before in wishes.items():
        site.order(namespace, name, duration="40s", renew_before=before)
    first = {name: site.await_ready(namespace, name) for name in wishes}
    site.plane.create(manifests.deployment("web", namespace, *map(manifests.volume, wishes)))
    for name in wishes:
        site.await_rolled_out(namespace, name)

    for name, chain in first.items():
        site.await_new(namespace, name, after=chain)
    reasons = {name: site.status(namespace, name)["lastRenewal"]["reason"] for name in wishes}
    until(lambda: site.generation(namespace, "web") > 1, 20, "a restart")
    for name in wishes:
        site.await_rolled_out(namespace, name)

    assert reasons == {"web-tls": "RenewalDue", "other-tls": "SiblingRenewed"}
    assert site.generation(namespace, "web") == 2


# -- who cannot be restarted, or waits for somebody ----------------------------------------------------------------


@contextmanager
def frozen(site: Site, namespace: str, name: str) -> Iterator[None]:
    """The API server does not let the operator change one Deployment."""
    title = f"frozen.{namespace}"
    about: Manifest = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": title}}
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["UPDATE"]}
    user = account_name(SYSTEM, site.operator.account)
    this = f"object.metadata.namespace == '{namespace}' && object.metadata.name == '{name}'"
    policy = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [
            {"name": "this", "expression": this},
            {"name": "operator", "expression": f"request.userInfo.username == '{user}'"},
        ],
        "validations": [{"expression": "false", "message": "frozen until Monday"}],
    }
    binding = {"policyName": title, "validationActions": ["Deny"]}
    site.plane.create({**about, "kind": "ValidatingAdmissionPolicy", "spec": policy})
    site.plane.create({**about, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding})
    operator = site.plane.account(SYSTEM, site.operator.account)

    def in_force() -> bool:
        path = operator.resource("deployments.apps").path(namespace, name) + "?dryRun=All"
        try:
            operator.api("PATCH", path, {"metadata": {"labels": {"probe": "true"}}}, "application/merge-patch+json")
        except ApiError as failure:
            return "frozen" in str(failure)
        return False

    try:
        until(in_force, 20, "the policy is in force")
        yield
    finally:
        for plural in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
            site.plane.delete(plural, "", title)


def test_a_workload_that_may_not_be_changed_stops_no_other(site: Site, namespace: str) -> None:
    names = ("a", "frozen", "z")
    settled(site, namespace, *(web(namespace, name) for name in names), web(namespace, "later", restart_order="1"))
    with frozen(site, namespace, "frozen"):
        renewed(site, namespace)
        await_workload(site, namespace, "frozen", "Failed", "frozen until Monday")
        for name in ("a", "z", "later"):
            await_workload(site, namespace, name, "Healthy")
        message = site.await_condition(namespace, kind="RolledOut", status="False", reason="RestartFailed")
        until(lambda: site.events(namespace, "frozen", "RestartFailed"), 10, "a Warning")

    assert "Deployment/frozen (" in message
    assert "frozen until Monday" in message
    assert {name: site.generation(namespace, name) for name in (*names, "later")} == {
        "a": 2,
        "frozen": 1,
        "z": 2,
        "later": 2,
    }


def test_an_annotation_that_cannot_be_read_fails_one_and_stops_no_other(site: Site, namespace: str) -> None:
    settled(site, namespace, web(namespace, "a"), web(namespace, "odd"), web(namespace, "later", restart_order="1"))
    site.plane.annotate("deployments.apps", namespace, "odd", restart_order="first " + "!" * 40_000)
    await_workload(site, namespace, "odd", "Failed", "certrenewal.dev/restart-order")
    started = datetime.now(UTC)
    renewed(site, namespace)

    for name in ("a", "later"):
        await_workload(site, namespace, name, "Healthy")
    assert order(site, namespace, started) == ["a", "later"]
    message = site.await_condition(namespace, kind="RolledOut", status="False", reason="RestartFailed")
    assert "Deployment/odd (annotation certrenewal.dev/restart-order" in message

    site.plane.annotate("deployments.apps", namespace, "odd", restart_order="1")
    site.await_rolled_out(namespace)
    assert order(site, namespace, started) == ["a", "later", "odd"]


def test_a_workload_that_is_listed_and_missing_stops_no_other(site: Site, namespace: str) -> None:
    settled(site, namespace, web(namespace), restart="Deployment/ghost,Deployment/web,StatefulSet/ghost")

    renewed(site, namespace)
    until(lambda: site.generation(namespace, "web") == 2, 20, "the restart")
    site.await_rolled_out(namespace)

    assert site.status(namespace)["restarts"] == "1/1"


def partitioned(namespace: str) -> Manifest:
    found = manifests.stateful_set("db", namespace, WEB_TLS, replicas=2)
    found["spec"]["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    return found


def on_delete(namespace: str) -> Manifest:
    found = manifests.stateful_set("db", namespace, WEB_TLS, replicas=2)
    found["spec"]["updateStrategy"] = {"type": "OnDelete"}
    return found


def agents(namespace: str) -> Manifest:
    found = manifests.daemon_set("db", namespace, WEB_TLS)
    found["spec"]["updateStrategy"] = {"type": "OnDelete"}
    return found


def paused(namespace: str) -> Manifest:
    return manifests.deployment("db", namespace, WEB_TLS)


def pause(site: Site, namespace: str) -> None:
    site.plane.merge_patch("deployments.apps", namespace, "db", {"spec": {"paused": True}})


def lower_partition(site: Site, namespace: str) -> None:
    strategy = {"updateStrategy": {"rollingUpdate": {"partition": 0}}}
    site.plane.merge_patch("statefulsets.apps", namespace, "db", {"spec": strategy})


def delete_pods(site: Site, namespace: str) -> None:
    for pod in site.plane.objects("pods", namespace, "app=db"):
        site.plane.delete("pods", namespace, pod["metadata"]["name"])


def resume(site: Site, namespace: str) -> None:
    site.plane.merge_patch("deployments.apps", namespace, "db", {"spec": {"paused": False}})


def nothing(site: Site, namespace: str) -> None:
    pass


@pytest.mark.parametrize(
    ("build", "before", "words", "help_along"),
    [
        pytest.param(partitioned, nothing, "its partition 1 keeps 1 pods", lower_partition, id="partition"),
        pytest.param(on_delete, nothing, "its update strategy is OnDelete", delete_pods, id="OnDelete"),
        pytest.param(agents, nothing, "its update strategy is OnDelete", delete_pods, id="DaemonSet OnDelete"),
        pytest.param(paused, pause, "the Deployment is paused", resume, id="paused"),
    ],
)
def test_who_waits_for_somebody_says_for_what_and_is_done_then(
    site: Site,
    namespace: str,
    build: Callable[[str], Manifest],
    before: Callable[[Site, str], None],
    words: str,
    help_along: Callable[[Site, str], None],
) -> None:
    settled(site, namespace, build(namespace))
    before(site, namespace)
    renewed(site, namespace)

    await_workload(site, namespace, "db", "Restarting", words)
    message = site.await_condition(namespace, kind="RolledOut", status="False", reason="Restarting")
    assert words in message

    help_along(site, namespace)
    site.await_rolled_out(namespace)
    assert site.status(namespace)["restarts"] == "1/1"
