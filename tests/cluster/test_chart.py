"""The chart refuses what it does not know, asks for no right it does not use, and upgrades without losing anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.site import PASSWORD_SECRET, SYSTEM, Site, authority, prepare, sweep
from tests.conftest import MakeCA
from tests.testbed import manifests, operators
from tests.testbed.api import ApiError
from tests.testbed.controlplane import ControlPlane
from tests.testbed.operators import Operator
from tests.testbed.processes import until
from tests.testbed.stepca import StepCA


@pytest.fixture(scope="module")
def ca(make_ca: MakeCA) -> StepCA:
    """The CA of these releases."""
    return make_ca(backdate="0s")


@pytest.fixture
def clean(plane: ControlPlane, ca: StepCA) -> Iterator[ControlPlane]:
    """A cluster without a release, and without one afterwards."""
    prepare(plane, ca)
    yield plane
    operators.uninstall(plane, SYSTEM)
    sweep(plane)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replica": 2}, "replica"),
        ({"authority": {"create": True}}, "authority.url"),
        ({"authority": {"url": "http://ca"}}, "url"),
        ({"logLevel": "loud"}, "logLevel"),
        ({"watchNamespaces": "shop"}, "watchNamespaces"),
        ({"restarts": {"perMinute": 0}}, "perMinute"),
        ({"extraWorkloads": [{"group": "apps", "version": "v1", "resource": "deployments"}]}, "group"),
        ({"extraWorkloads": [{"group": "argoproj.io", "resource": "rollouts"}]}, "version"),
        ({"hooks": {"allowedHosts": ["https://a.example.com"]}}, "allowedHosts"),
        ({"tokens": {"authority": "A"}}, "authority"),
    ],
    ids=[
        "unknown value",
        "authority without url",
        "plain HTTP",
        "unknown level",
        "no list",
        "no restarts",
        "a kind that is watched anyway",
        "a kind without a version",
        "no host",
        "no name",
    ],
)
def test_bad_values_are_refused_by_name(plane: ControlPlane, values: dict[str, Any], named: str) -> None:
    with pytest.raises(RuntimeError) as refusal:
        operators.install(plane, SYSTEM, "bad", values)

    assert named in str(refusal.value)


def test_the_pod_passes_the_restricted_standard(clean: ControlPlane, ca: StepCA) -> None:
    enforce = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    clean.merge_patch("namespaces", "", SYSTEM, enforce)

    operators.install(clean, SYSTEM, values={"authority": authority(ca), "replicas": 2})
    budget = clean.objects("poddisruptionbudgets.policy", SYSTEM)
    (pod, _) = clean.objects("pods", SYSTEM)
    container = pod["spec"]["containers"][0]

    assert len(budget) == 1
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"livenessProbe", "readinessProbe", "startupProbe", "resources"} <= container.keys()


def test_an_upgrade_changes_the_authority_and_an_uninstall_keeps_the_crds(clean: ControlPlane, ca: StepCA) -> None:
    operators.install(clean, SYSTEM, values={"authority": authority(ca, policy=[])})
    uid = clean.get("certauthorities", "", "default")["metadata"]["uid"]
    operators.upgrade(clean, SYSTEM, values={"authority": authority(ca)})
    upgraded = clean.get("certauthorities", "", "default")
    clean.apply(manifests.namespace("kept"))
    clean.create(manifests.cert_renewal("kept", "kept", {"names": ["a.kept.svc"]}))

    operators.uninstall(clean, SYSTEM)
    kept = clean.find("certrenewals", "kept", "kept")
    operators.install(clean, SYSTEM, values={"authority": authority(ca)})

    assert upgraded["metadata"]["uid"] == uid
    assert upgraded["spec"]["policy"] != []
    assert kept is not None
    assert clean.find("certauthorities", "", "default") is not None


RIGHTS = {
    "secrets": "get list watch create patch",
    "namespaces": "list watch",
    "events": "create",
    "certrenewals.certrenewal.dev": "list watch create patch delete",
    "certrenewals/status.certrenewal.dev": "patch",
    "certauthorities.certrenewal.dev": "list watch",
    "certauthorities/status.certrenewal.dev": "patch",
    "deployments.apps": "list watch patch",
    "statefulsets.apps": "list watch patch",
    "daemonsets.apps": "list watch patch",
    "pods": "list patch",
    "cronjobs.batch": "list watch",
    "jobs.batch": "list watch",
    "configmaps": "list watch create",
    "configmaps certrenewal-roots-default": "patch delete",
    f"leases.coordination.k8s.io in {SYSTEM}": "get create update",
}


@pytest.mark.parametrize(
    ("values", "more"),
    [({}, {}), ({"tokens": {"enabled": True}}, {"tokenreviews.authentication.k8s.io": "create"})],
    ids=["as it comes", "with tokens"],
)
def test_the_rights_are_those_that_are_used_and_no_other(
    clean: ControlPlane, ca: StepCA, values: dict[str, Any], more: dict[str, str]
) -> None:
    operators.install(clean, SYSTEM, values={"authority": authority(ca), **values})

    account = Operator(clean, SYSTEM).account

    assert rights(clean, account) == RIGHTS | more


def test_tokens_are_handed_out_at_a_service_and_a_port_of_their_own(clean: ControlPlane) -> None:
    operators.install(clean, SYSTEM, values={"networkPolicy": {"enabled": True}})
    before = clean.find("services", SYSTEM, "certrenewal")
    operators.upgrade(clean, SYSTEM, values={"networkPolicy": {"enabled": True}, "tokens": {"enabled": True}})
    (port,) = clean.get("services", SYSTEM, "certrenewal")["spec"]["ports"]
    (pod, *_) = clean.get("deployments.apps", SYSTEM, "certrenewal")["spec"]["template"]["spec"]["containers"]
    (rule,) = clean.get("networkpolicies.networking.k8s.io", SYSTEM, "certrenewal")["spec"]["ingress"]

    assert before is None
    assert (port["port"], port["targetPort"]) == (443, "tokens")
    assert {"name": "tokens", "containerPort": 8443, "protocol": "TCP"} in pod["ports"]
    assert [entry["port"] for entry in rule["ports"]] == ["http", "tokens"]
    names = f"certrenewal.{SYSTEM}.svc,certrenewal.{SYSTEM}.svc.cluster.local,certrenewal.{SYSTEM}"
    assert f"--token-names={names}" in pod["args"]


def test_verification_adds_just_the_rights_that_it_takes(clean: ControlPlane, ca: StepCA) -> None:
    operators.install(clean, SYSTEM, values={"authority": authority(ca)})
    account = Operator(clean, SYSTEM).account
    before = rights(clean, account)

    operators.upgrade(clean, SYSTEM, values={"authority": authority(ca), "restarts": {"verify": True}})
    after = rights(clean, account)

    added = {"services": "get", "endpointslices.discovery.k8s.io": "list"}
    assert after == {**before, **added}


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({"touchPods": False}, {"pods": ""}),
        ({"signal": True}, {"pods/exec": "get create"}),
        ({"touchPods": False, "signal": True}, {"pods": "list", "pods/exec": "get create"}),
    ],
    ids=["no touching", "signals", "signals without touching"],
)
def test_reloads_take_just_the_rights_that_are_asked_for(
    clean: ControlPlane, ca: StepCA, values: dict[str, bool], changed: dict[str, str]
) -> None:
    operators.install(clean, SYSTEM, values={"authority": authority(ca)})
    account = Operator(clean, SYSTEM).account
    before = rights(clean, account)

    operators.upgrade(clean, SYSTEM, values={"authority": authority(ca), "restarts": values})
    after = rights(clean, account)

    assert after == {resource: verbs for resource, verbs in {**before, **changed}.items() if verbs}


@pytest.mark.parametrize(
    ("values", "added"),
    [
        (
            {"extraWorkloads": [{"group": "argoproj.io", "version": "v1alpha1", "resource": "rollouts"}]},
            {"rollouts.argoproj.io": "list watch patch"},
        ),
        ({"restarts": {"touchPods": False, "reportPods": True}}, {"pods": "list"}),
        ({"restarts": {"reportPods": True}}, {"pods": "list patch"}),
    ],
    ids=["another kind", "bare Pods", "bare Pods beside touching"],
)
def test_other_kinds_take_just_the_rights_that_are_asked_for(
    clean: ControlPlane, ca: StepCA, values: dict[str, Any], added: dict[str, str]
) -> None:
    operators.install(clean, SYSTEM, values={"authority": authority(ca)})
    account = Operator(clean, SYSTEM).account
    before = rights(clean, account)

    operators.upgrade(clean, SYSTEM, values={"authority": authority(ca), **values})

    assert rights(clean, account) == {**before, **added}


def rights(plane: ControlPlane, account: str) -> dict[str, str]:
    """The verbs that all bindings together give a ServiceAccount of the release, by resource and namespace."""
    found: dict[str, str] = {}
    for kind in ("clusterrolebindings", "rolebindings"):
        for binding in plane.objects(f"{kind}.rbac.authorization.k8s.io"):
            subjects = [(s["kind"], s.get("namespace"), s["name"]) for s in binding.get("subjects") or ()]
            if ("ServiceAccount", SYSTEM, account) not in subjects:
                continue
            namespace = binding["metadata"].get("namespace", "")
            reference = binding["roleRef"]
            home = "" if reference["kind"] == "ClusterRole" else namespace
            role = plane.get(f"{reference['kind'].lower()}s.rbac.authorization.k8s.io", home, reference["name"])
            for rule in role["rules"]:
                for resource in rule["resources"]:
                    for group in rule["apiGroups"]:
                        label = f"{resource}.{group}".rstrip(".") + (f" in {namespace}" if namespace else "")
                        label = " ".join([label, *rule.get("resourceNames", ())])
                        found[label] = " ".join([*found.get(label, "").split(), *rule["verbs"]])
    return found


def test_with_watched_namespaces_there_is_no_right_on_other_secrets(clean: ControlPlane, ca: StepCA) -> None:
    for name in ("inside", "outside"):
        clean.apply(manifests.namespace(name))
    operators.install(clean, SYSTEM, values={"authority": authority(ca), "watchNamespaces": ["inside"]})
    operator = Operator(clean, SYSTEM)
    account = clean.account(SYSTEM, operator.account)
    operator.start()
    try:
        site = Site(plane=clean, ca=ca, operator=operator)
        for name in ("inside", "outside"):
            site.order(name)
        site.await_ready("inside")

        assert clean.find("certrenewals", "outside", "web-tls") is None
        assert account.get("secrets", SYSTEM, PASSWORD_SECRET)
        for refused in (("secrets", "outside", "web-tls"), ("secrets", SYSTEM, "another")):
            with pytest.raises(ApiError) as refusal:
                account.get(*refused)
            assert refusal.value.status == 403
        with pytest.raises(ApiError):
            account.objects("secrets")
    finally:
        operator.stop()


def test_a_cluster_without_secrets_is_ready(clean: ControlPlane, ca: StepCA) -> None:
    clean.apply(manifests.namespace("bare"))
    operators.install(clean, SYSTEM, values={"watchNamespaces": ["bare"]})
    operator = Operator(clean, SYSTEM)

    operator.start()

    assert operator.http("/readyz")[0] == 200
    assert operator.stop() == 0


def test_an_operator_without_its_crds_waits_for_them(clean: ControlPlane) -> None:
    operators.install(clean, SYSTEM)
    for plural in ("certrenewals", "certauthorities"):
        clean.delete("customresourcedefinitions", "", f"{plural}.certrenewal.dev")
    until(lambda: not clean.kubectl("get", "crd", "-o", "name").strip(), 20, "the CRDs are gone")
    operator = Operator(clean, SYSTEM)
    operator.launch()
    try:
        until(lambda: "CRDs" in operator.log_text(), 20, "it says what is missing")
        ready = operator.ready()
        operators.upgrade(clean, SYSTEM)
        operator.await_ready()

        assert not ready
    finally:
        operator.stop()
