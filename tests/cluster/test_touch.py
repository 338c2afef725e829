"""Pods that nobody restarts get new files at once: they are touched once for each certificate."""

from __future__ import annotations

from tests.cluster.site import Site
from tests.testbed import manifests
from tests.testbed.controlplane import Request
from tests.testbed.processes import until

MARK = "certificate.certrenewal.dev/web-tls"
PATCHES = Request("PATCH", "", "pods", "")
NEVER = manifests.prefixed(restart="Never")


def pod_marks(site: Site, namespace: str) -> list[str]:
    """The mark on each pod that has one."""
    found = [pod["metadata"].get("annotations") or {} for pod in site.plane.objects("pods", namespace)]
    return [annotations[MARK] for annotations in found if MARK in annotations]


def run(site: Site, namespace: str, number: int) -> bool:
    """Whether so many pods run."""
    phases = [pod["status"].get("phase") for pod in site.plane.objects("pods", namespace)]
    return phases == ["Running"] * number


def renew(site: Site, namespace: str) -> str:
    """Have a new certificate written; its mark."""
    before = site.chain(namespace)
    site.plane.annotate("secrets", namespace, "web-tls", renew_now=before.leaf.serial)
    return site.await_new(namespace, after=before).leaf.fingerprint[:16]


def test_pods_that_nobody_restarts_are_touched_once_for_each_certificate(site: Site, namespace: str) -> None:
    use = manifests.volume("web-tls")
    site.plane.create(manifests.deployment("calm", namespace, use, replicas=2, annotations=NEVER))
    site.plane.create(manifests.stateful_set("db", namespace, use, annotations=NEVER))
    site.plane.create(manifests.deployment("env", namespace, manifests.env("web-tls"), annotations=NEVER))
    until(lambda: run(site, namespace, 4), 20, "four pods run")
    site.order(namespace)
    first = site.await_ready(namespace).leaf.fingerprint[:16]
    until(lambda: pod_marks(site, namespace) == [first] * 3, 20, "three pods touched")
    patches = site.plane.request_counts()[PATCHES]

    second = renew(site, namespace)
    until(lambda: pod_marks(site, namespace) == [second] * 3, 20, "three pods touched again")
    site.operator.restart()
    site.await_rolled_out(namespace)

    assert site.plane.request_counts()[PATCHES] == patches + 3
    assert [site.generation(namespace, name) for name in ("calm", "env")] == [1, 1]
    hints = {w["name"]: w.get("message", "") for w in site.status(namespace)["workloads"]}
    assert hints == {
        "calm": "",
        "db": "",
        "env": "container main has web-tls in its environment, which only a restart renews",
    }


def test_pods_that_are_restarted_are_not_touched(site: Site, namespace: str) -> None:
    site.order(namespace)
    site.await_ready(namespace)
    site.plane.create(manifests.deployment("web", namespace, manifests.volume("web-tls")))
    site.await_rolled_out(namespace)
    until(lambda: run(site, namespace, 1), 20, "its pod runs")
    patches = site.plane.request_counts()[PATCHES]

    renew(site, namespace)
    site.await_rolled_out(namespace)

    assert site.plane.request_counts()[PATCHES] == patches


def test_a_secret_whose_workloads_are_not_restarted_has_their_pods_touched(site: Site, namespace: str) -> None:
    site.order(namespace, restart="Never")
    site.await_ready(namespace)
    site.plane.create(manifests.deployment("web", namespace, manifests.volume("web-tls")))
    until(lambda: run(site, namespace, 1), 20, "its pod runs")
    until(lambda: site.status(namespace).get("workloads"), 20, "it is known")

    mark = renew(site, namespace)

    until(lambda: pod_marks(site, namespace) == [mark], 20, "the pod is touched")
    assert site.generation(namespace, "web") == 1


def test_a_signal_without_the_right_to_send_it_names_the_chart_value(site: Site, namespace: str) -> None:
    wish = manifests.prefixed(restart="Signal")
    site.order(namespace)
    site.await_ready(namespace)

    site.plane.create(manifests.deployment("web", namespace, manifests.volume("web-tls"), annotations=wish))
    site.await_condition(namespace, kind="RolledOut", status="False", reason="RestartFailed")

    (workload,) = site.status(namespace)["workloads"]
    assert workload["state"] == "Failed"
    assert "restarts.signal: true" in workload["message"]
    assert site.generation(namespace, "web") == 1
