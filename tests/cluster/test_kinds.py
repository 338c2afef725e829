"""Other kinds with a pod template are restarted too, owners in the place of what they own; the rest is only named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.site import Site, installed
from tests.cluster.test_restart import marks, renewed
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.api import ApiError, Manifest
from tests.testbed.controlplane import ControlPlane
from tests.testbed.processes import until
from tests.testbed.stepca import StepCA

ROLLOUTS = "rollouts.argoproj.io"
EXTRA = [
    {"group": "argoproj.io", "version": "v1alpha1", "resource": "rollouts"},
    {"group": "apps.example.com", "version": "v1", "resource": "absent"},
]
USE = manifests.volume("web-tls")
HEALTHY = {"phase": "Healthy"}


def definition() -> Manifest:
    """The kind of Argo's Rollouts, as far as it matters here."""
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": ROLLOUTS},
        "spec": {
            "group": "argoproj.io",
            "scope": "Namespaced",
            "names": {"kind": "Rollout", "listKind": "RolloutList", "plural": "rollouts", "singular": "rollout"},
            "versions": [version],
        },
    }


def install_rollouts(plane: ControlPlane) -> None:
    """Have the API server know Rollouts."""
    plane.apply(definition())
    until(lambda: plane.objects(ROLLOUTS) == [], 20, "Rollouts are known", ignoring=(ApiError, LookupError))


def remove_rollouts(plane: ControlPlane) -> None:
    """Have it forget them."""
    if plane.find("customresourcedefinitions", "", ROLLOUTS):
        plane.delete("customresourcedefinitions", "", ROLLOUTS)
        until(lambda: not plane.find("customresourcedefinitions", "", ROLLOUTS), 20, "Rollouts are forgotten")


@pytest.fixture(scope="module")
def ca(make_ca: MakeCA) -> StepCA:
    """The CA of this module."""
    return make_ca(backdate="0s")


@pytest.fixture(scope="module")
def site(plane: ControlPlane, ca: StepCA) -> Iterator[Site]:
    """An operator that restarts Rollouts, names bare Pods, and waits for a kind that never comes."""
    install_rollouts(plane)
    with installed(plane, ca, values={"extraWorkloads": EXTRA, "restarts": {"reportPods": True}}) as running:
        yield running
    remove_rollouts(plane)


def rollout(name: str, namespace: str, *uses: manifests.Use, **options: Any) -> Manifest:
    """An Argo Rollout."""
    made = manifests.workload("Rollout", name, namespace, *uses, spec={"replicas": 1}, **options)
    return {**made, "apiVersion": "argoproj.io/v1alpha1"}


def tell(site: Site, namespace: str, status: Manifest, name: str = "web") -> None:
    """Write a Rollout's status as Argo's controller does, which writes the generation as a text."""
    seen = str(site.plane.get(ROLLOUTS, namespace, name)["metadata"]["generation"])
    patch = {"status": {"observedGeneration": seen, **status}}
    site.plane.merge_patch(ROLLOUTS, namespace, name, patch, subresource="status")


def rolled(site: Site, namespace: str, name: str) -> int:
    """The generation of a Rollout: each restart is one more."""
    return int(site.plane.get(ROLLOUTS, namespace, name)["metadata"]["generation"])


def owned(workload: Manifest, owner: Manifest, api_version: str = "argoproj.io/v1alpha1") -> Manifest:
    """The workload as one that a controller made."""
    about = owner["metadata"]
    reference = {"apiVersion": api_version, "kind": owner["kind"], "name": about["name"], "uid": about["uid"]}
    workload["metadata"]["ownerReferences"] = [{**reference, "controller": True}]
    return workload


def standing(site: Site, namespace: str) -> dict[str, tuple[str, str]]:
    """State and message of each workload in status."""
    found = site.status(namespace).get("workloads") or ()
    return {f"{w['kind']}/{w['name']}": (w["state"], w.get("message", "")) for w in found}


def settle(site: Site, namespace: str, expected: dict[str, tuple[str, str]]) -> None:
    """Wait until status tells just this."""
    until(lambda: standing(site, namespace) == expected, 20, f"status tells {expected}")


def renew(site: Site, namespace: str) -> str:
    """Have a new certificate written; its mark."""
    before = site.chain(namespace)
    site.plane.annotate("secrets", namespace, "web-tls", renew_now=before.leaf.serial)
    return site.await_new(namespace, after=before).leaf.fingerprint[:16]


# -- Rollouts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", ["Auto", "Rollout/web"])
def test_a_rollout_is_restarted_and_followed_by_its_phase(site: Site, namespace: str, restart: str) -> None:
    site.plane.create(rollout("web", namespace, USE))
    tell(site, namespace, HEALTHY)
    site.order(namespace, restart=restart)
    first = site.await_ready(namespace).leaf.fingerprint[:16]
    until(lambda: rolled(site, namespace, "web") == 2, 20, "the first restart")
    tell(site, namespace, HEALTHY)
    site.await_rolled_out(namespace)

    mark = renew(site, namespace)
    settle(site, namespace, {"Rollout/web": ("Restarting", "")})
    tell(site, namespace, {"phase": "Paused", "message": "CanaryPauseStep"})
    paused = "the Rollout is paused (CanaryPauseStep): promote it to let the new certificate in"
    settle(site, namespace, {"Rollout/web": ("Restarting", paused)})
    tell(site, namespace, {"phase": "Degraded", "message": "RolloutAborted: no success"})
    settle(site, namespace, {"Rollout/web": ("Failed", "RolloutAborted: no success")})
    tell(site, namespace, {**HEALTHY, "message": None})
    site.await_rolled_out(namespace)

    found = site.plane.get(ROLLOUTS, namespace, "web")
    assert first != mark
    assert list(marks(found).values()) == [mark]
    assert found["metadata"]["generation"] == 3
    assert site.status(namespace)["restarts"] == "1/1"
    assert len(site.events(namespace, "web", "Restarted")) == 2


def test_annotations_of_others_are_left_as_they_are(site: Site, namespace: str) -> None:
    others = {
        "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z",
        "reloader.stakater.com/last-reloaded-from": "{}",
    }
    workload = manifests.deployment("web", namespace, USE)
    workload["spec"]["template"]["metadata"]["annotations"] = others
    variable = {"name": "STAKATER_WEB_TLS_SECRET", "value": "abc"}
    workload["spec"]["template"]["spec"]["containers"][0]["env"] = [variable]
    site.plane.create(workload)
    site.order(namespace)
    site.await_ready(namespace)
    site.await_rolled_out(namespace)

    mark = renewed(site, namespace)

    template = site.plane.get("deployments.apps", namespace, "web")["spec"]["template"]
    assert template["metadata"]["annotations"] == {**others, "certificate.certrenewal.dev/web-tls": mark}
    assert template["spec"]["containers"][0]["env"] == [variable]


# -- owners --------------------------------------------------------------------------------------------------------


def test_an_owner_is_restarted_for_what_it_owns(site: Site, namespace: str) -> None:
    owner = site.plane.create(rollout("top", namespace))
    site.plane.create(owned(manifests.deployment("web", namespace, USE), owner))
    tell(site, namespace, HEALTHY, "top")
    site.order(namespace)
    site.await_ready(namespace)
    until(lambda: rolled(site, namespace, "top") == 2, 20, "the first restart")
    tell(site, namespace, HEALTHY, "top")
    site.await_rolled_out(namespace)

    mark = renew(site, namespace)
    until(lambda: rolled(site, namespace, "top") == 3, 20, "the restart")
    tell(site, namespace, HEALTHY, "top")
    site.await_rolled_out(namespace)

    assert standing(site, namespace) == {
        "Rollout/top": ("Healthy", ""),
        "Deployment/web": ("Skipped", "restarted through Rollout/top"),
    }
    assert list(marks(site.plane.get(ROLLOUTS, namespace, "top")).values()) == [mark]
    assert site.generation(namespace, "web") == 1
    assert site.status(namespace)["restarts"] == "1/1"


def test_a_workload_of_an_owner_that_nobody_knows_is_restarted_itself(site: Site, namespace: str) -> None:
    owner = site.plane.create(manifests.secret("operator", namespace))
    site.plane.create(owned(manifests.deployment("web", namespace, USE), {**owner, "kind": "Secret"}, "v1"))
    site.order(namespace)
    site.await_ready(namespace)
    site.await_rolled_out(namespace)

    assert standing(site, namespace) == {"Deployment/web": ("Healthy", "")}
    assert site.generation(namespace, "web") == 2


# -- what is only named --------------------------------------------------------------------------------------------


def pods(*uses: manifests.Use, **more: Any) -> Manifest:
    """A pod template's spec."""
    made = manifests.deployment("any", "any", *uses)["spec"]["template"]["spec"]
    return {**made, "restartPolicy": "Never", **more}


def cron_job(namespace: str) -> Manifest:
    """One that does not run by itself."""
    template = {"spec": {"template": {"spec": pods(USE)}}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "nightly", "namespace": namespace},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": template},
    }


def job(namespace: str, name: str = "once") -> Manifest:
    """One that runs, as nothing ends pods here."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": pods(USE)}},
    }


def bare_pod(namespace: str) -> Manifest:
    """A Pod that no controller made."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": namespace}, "spec": pods(USE)}


NAMED = {
    "CronJob/nightly": ("Skipped", "takes the certificate at its next run"),
    "Job/once": ("Skipped", "a Job is not restarted: its next run takes the new certificate"),
    "Pod/bare": ("Skipped", "a bare Pod is not restarted: delete it and create it again"),
}


def test_what_is_never_restarted_is_named_and_left_alone(site: Site, namespace: str) -> None:
    nightly = site.plane.create(cron_job(namespace))
    site.plane.create(job(namespace))
    site.plane.create(owned(job(namespace, "nightly-1"), nightly, "batch/v1"))
    site.plane.create(bare_pod(namespace))
    site.plane.create(manifests.deployment("web", namespace, USE))
    site.order(namespace)
    site.await_ready(namespace)

    settle(site, namespace, {**NAMED, "Deployment/web": ("Healthy", "")})
    renewed(site, namespace)
    settle(site, namespace, {**NAMED, "Deployment/web": ("Healthy", "")})

    assert site.status(namespace)["restarts"] == "1/1"
    assert site.plane.get("cronjobs.batch", namespace, "nightly")["metadata"]["generation"] == 1
    for kind, name in (("jobs.batch", "once"), ("pods", "bare")):
        assert "certificate.certrenewal.dev" not in str(site.plane.get(kind, namespace, name)["spec"])


def test_what_has_ended_is_named_no_more(site: Site, namespace: str) -> None:
    site.plane.create(job(namespace))
    site.plane.create(bare_pod(namespace))
    site.order(namespace)
    site.await_ready(namespace)
    settle(site, namespace, {kind: NAMED[kind] for kind in ("Job/once", "Pod/bare")})

    (running,) = site.plane.objects("pods", namespace, "job-name=once")
    done = {"status": {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]}}
    site.plane.merge_patch("pods", namespace, running["metadata"]["name"], done, subresource="status")
    settle(site, namespace, {"Pod/bare": NAMED["Pod/bare"]})
    site.plane.delete("pods", namespace, "bare")
    until(lambda: not site.plane.find("pods", namespace, "bare"), 20, "the Pod is gone")
    renew(site, namespace)

    settle(site, namespace, {})


def test_the_operator_names_the_same_after_a_restart(site: Site, namespace: str) -> None:
    site.plane.create(cron_job(namespace))
    site.plane.create(bare_pod(namespace))
    site.order(namespace)
    site.await_ready(namespace)
    expected = {kind: NAMED[kind] for kind in ("CronJob/nightly", "Pod/bare")}
    settle(site, namespace, expected)

    site.operator.restart()
    site.order(namespace, "later-tls")
    site.await_ready(namespace, "later-tls")

    settle(site, namespace, expected)


# -- kinds that come and go ----------------------------------------------------------------------------------------


def test_an_operator_works_without_a_kind_that_is_not_installed(site: Site) -> None:
    told = [line for line in site.operator.logs() if "cannot be followed" in line["message"]]

    assert {line["collection"].partition("/apis/")[2] for line in told} == {"apps.example.com/v1/absent"}
    assert "404" in told[0]["error"]
