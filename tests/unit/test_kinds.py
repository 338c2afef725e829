"""Guards: kinds are named so that nobody is mistaken, templates are found, and what has ended is not named."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from certrenewal import cli
from certrenewal.domain.kinds import BUILT_IN, WATCHED, Owner, Resource, kind_word, owner_of, parse_resource
from certrenewal.domain.rollout import parse_workload
from certrenewal.domain.spec import WorkloadRef

ROLLOUTS = Resource("argoproj.io", "v1alpha1", "rollouts")
POD = {"containers": [{"name": "main", "envFrom": [{"secretRef": {"name": "web-tls"}}]}]}


def body(kind: str, spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": "web", "uid": "w1", **changes.pop("metadata", {})}
    return {"kind": kind, "metadata": metadata, "spec": spec, **changes}


def controller(api_version: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "name": "top", "uid": "o1", "controller": True, **more}


# -- resources -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        ("argoproj.io/v1alpha1/rollouts", ROLLOUTS),
        ("apps.kruise.io/v1/clonesets", Resource("apps.kruise.io", "v1", "clonesets")),
        ("apps.openshift.io/v1/deploymentconfigs", Resource("apps.openshift.io", "v1", "deploymentconfigs")),
    ],
)
def test_a_custom_resource_is_read(text: str, resource: Resource) -> None:
    assert parse_resource(text) == resource
    assert str(resource) == text


@pytest.mark.parametrize(
    "text",
    [
        "rollouts",
        "argoproj.io/rollouts",
        "argoproj.io/v1alpha1/Rollout",
        "argoproj.io/latest/rollouts",
        "apps/v1/deployments",
        "apps/v1/replicasets",
        "v1/pods",
        "argoproj.io/v1alpha1/rollouts/status",
        "argoproj.io/v1alpha1/rollouts?x=y",
        "-argoproj.io/v1alpha1/rollouts",
        "",
        f"{'a' * 253}.io/v1/things",
    ],
)
def test_all_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write group/version/resource of a custom resource, such as "):
        parse_resource(text)


@pytest.mark.parametrize("place", ["option", "variable"])
def test_the_command_line_refuses_a_kind_that_cannot_be_read(place: str) -> None:
    arguments = ["--extra-workloads=argoproj.io/v1alpha1/rollouts,apps/v1/deployments"] if place == "option" else []
    environment = {} if arguments else {"CERTRENEWAL_EXTRA_WORKLOADS": "apps/v1/deployments"}

    outcome = CliRunner().invoke(cli.main, ["operator", *arguments], env=environment)

    assert outcome.exit_code == 2
    assert "apps/v1/deployments" in outcome.output
    assert "argoproj.io/v1alpha1/rollouts" in outcome.output


@pytest.mark.parametrize(
    ("resource", "collection", "item"),
    [
        (ROLLOUTS, "/apis/argoproj.io/v1alpha1/rollouts", "/apis/argoproj.io/v1alpha1/namespaces/shop/rollouts/web"),
        (BUILT_IN["Deployment"], "/apis/apps/v1/deployments", "/apis/apps/v1/namespaces/shop/deployments/web"),
        (BUILT_IN["Pod"], "/api/v1/pods", "/api/v1/namespaces/shop/pods/web"),
    ],
)
def test_paths_are_those_of_the_api(resource: Resource, collection: str, item: str) -> None:
    assert (resource.path(), resource.path("shop", "web")) == (collection, item)


def test_pods_are_not_watched() -> None:
    assert {resource.plural for resource in WATCHED} == {
        "deployments",
        "statefulsets",
        "daemonsets",
        "cronjobs",
        "jobs",
    }


@pytest.mark.parametrize(
    ("kind", "group", "word"),
    [
        ("Rollout", "argoproj.io", "Rollout"),
        ("StatefulSet", "apps", "StatefulSet"),
        ("StatefulSet", "apps.kruise.io", "StatefulSet.apps.kruise.io"),
        ("Job", "batch.volcano.sh", "Job.batch.volcano.sh"),
        ("Pod", "", "Pod"),
    ],
)
def test_a_kind_is_named_as_users_do(kind: str, group: str, word: str) -> None:
    assert kind_word(kind, group) == word


# -- templates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("Rollout", body("Rollout", {"template": {"spec": POD}})),
        ("CronJob", body("CronJob", {"jobTemplate": {"spec": {"template": {"spec": POD}}}})),
        ("Job", body("Job", {"template": {"spec": POD}}, status={"active": 1})),
        ("Pod", body("Pod", POD, status={"phase": "Running"})),
        ("Pod", body("Pod", POD)),
    ],
)
def test_the_pods_of_each_kind_are_found(kind: str, found: dict[str, Any]) -> None:
    assert parse_workload(kind, found, BUILT_IN.get(kind, ROLLOUTS)).secrets == {"web-tls"}


@pytest.mark.parametrize(
    "spec", [{}, {"template": None}, {"template": "other"}, {"workloadRef": {"name": "web"}}], ids=str
)
def test_a_kind_without_a_template_is_no_workload(spec: dict[str, Any]) -> None:
    workload = parse_workload("Rollout", body("Rollout", spec), ROLLOUTS)

    assert workload.secrets == frozenset()
    assert not workload.can_be_restarted


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        pytest.param("Job", {"status": {"succeeded": 1}}, id="ended Job"),
        pytest.param("Job", {}, id="Job that has not begun"),
        pytest.param(
            "Job",
            {"status": {"active": 1}, "metadata": {"ownerReferences": [controller("batch/v1", "CronJob")]}},
            id="Job of a CronJob",
        ),
        pytest.param("Pod", {"status": {"phase": "Succeeded"}}, id="ended Pod"),
        pytest.param("Pod", {"status": {"phase": "Failed"}}, id="failed Pod"),
        pytest.param("Pod", {"metadata": {"ownerReferences": [controller("v1", "Node")]}}, id="Pod of a controller"),
    ],
)
def test_what_has_ended_or_is_named_elsewhere_uses_nothing(kind: str, changes: dict[str, Any]) -> None:
    spec = POD if kind == "Pod" else {"template": {"spec": POD}}

    assert parse_workload(kind, body(kind, spec, **changes)).secrets == frozenset()


@pytest.mark.parametrize("kind", ["CronJob", "Job", "Pod"])
def test_what_is_never_restarted_leans_on_nobody(kind: str) -> None:
    workload = parse_workload(kind, body(kind, {}, metadata={"ownerReferences": [controller("x.io/v1", "X")]}))

    assert not workload.can_be_restarted
    assert not workload.leans_on_owner


# -- owners --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("references", "owner"),
    [
        pytest.param(None, None, id="none"),
        pytest.param([controller("argoproj.io/v1alpha1", "Rollout", controller=False)], None, id="no controller"),
        pytest.param(
            [controller("v1", "ConfigMap", controller=None), controller("argoproj.io/v1alpha1", "Rollout")],
            Owner(WorkloadRef("Rollout", "top"), "o1"),
            id="the controller of two",
        ),
        pytest.param(
            [controller("apps.kruise.io/v1", "DaemonSet")],
            Owner(WorkloadRef("DaemonSet.apps.kruise.io", "top"), "o1"),
            id="a kind of a common name",
        ),
    ],
)
def test_the_owner_is_the_controller(references: list[dict[str, Any]] | None, owner: Owner | None) -> None:
    assert owner_of({"ownerReferences": references}) == owner
