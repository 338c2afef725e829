"""Every dependent is restarted exactly once for each new certificate, and nobody for any other reason."""

from __future__ import annotations

import pytest

from tests.cluster.site import Site
from tests.testbed import manifests
from tests.testbed.api import Manifest
from tests.testbed.manifests import Use
from tests.testbed.processes import until

USES: dict[str, Use] = {
    "volume": manifests.volume("web-tls"),
    "projected volume": manifests.projected("web-tls"),
    "env": manifests.env("web-tls"),
    "envFrom": manifests.env_from("web-tls"),
    "init container": manifests.init("web-tls"),
    "imagePullSecrets": manifests.pull("web-tls"),
}


def marks(workload: Manifest) -> dict[str, str]:
    """The certificate marks on a pod template."""
    found = workload["spec"]["template"]["metadata"].get("annotations") or {}
    return {key: value for key, value in found.items() if key.startswith("certificate.certrenewal.dev/")}


def states(site: Site, namespace: str) -> dict[str, str]:
    """The state of each workload in status."""
    return {f"{w['kind']}/{w['name']}": w["state"] for w in site.status(namespace).get("workloads") or ()}


def renewed(site: Site, namespace: str, value: str = "1") -> str:
    """Ask for a renewal and wait for it and for its rollout; the mark of the new certificate."""
    before = site.chain(namespace)
    site.plane.annotate("secrets", namespace, "web-tls", renew_now=value)
    mark = site.await_new(namespace, after=before).leaf.fingerprint[:16]
    site.await_rolled_out(namespace)
    return mark


def settled(site: Site, namespace: str, *workloads: Manifest) -> None:
    """Create the Secret, wait for its certificate, then create workloads and wait until they are known."""
    site.order(namespace)
    site.await_ready(namespace)
    for workload in workloads:
        site.plane.create(workload)
    names = {f"{w['kind']}/{w['metadata']['name']}" for w in workloads}
    until(
        lambda: set(states(site, namespace).values()) == {"Healthy"} and names == set(states(site, namespace)),
        20,
        f"all of {names} healthy",
    )


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_every_way_to_use_a_secret_counts(site: Site, namespace: str, use: Use) -> None:
    settled(site, namespace, manifests.deployment("web", namespace, use))
    before = site.generation(namespace, "web")

    mark = renewed(site, namespace)

    assert site.generation(namespace, "web") == before + 1
    assert list(marks(site.plane.get("deployments.apps", namespace, "web")).values()) == [mark]


def test_all_kinds_of_workloads_are_restarted_and_counted(site: Site, namespace: str) -> None:
    use = manifests.volume("web-tls")
    settled(
        site,
        namespace,
        manifests.deployment("web", namespace, use, replicas=2),
        manifests.stateful_set("db", namespace, use),
        manifests.daemon_set("agent", namespace, use),
    )
    kinds = {"deployments": "web", "statefulsets": "db", "daemonsets": "agent"}
    before = {kind: site.generation(namespace, name, kind) for kind, name in kinds.items()}

    renewed(site, namespace)

    assert {kind: site.generation(namespace, name, kind) - before[kind] for kind, name in kinds.items()} == {
        "deployments": 1,
        "statefulsets": 1,
        "daemonsets": 1,
    }
    assert site.status(namespace)["restarts"] == "3/3"


def test_a_workload_that_does_not_use_the_secret_is_left_alone(site: Site, namespace: str) -> None:
    site.plane.create(manifests.deployment("other", namespace, manifests.volume("other-tls")))
    settled(site, namespace, manifests.deployment("web", namespace, manifests.volume("web-tls")))
    before = site.generation(namespace, "other")

    renewed(site, namespace)

    assert site.generation(namespace, "other") == before
    assert states(site, namespace) == {"Deployment/web": "Healthy"}


def test_the_first_certificate_restarts_those_that_began_without(site: Site, namespace: str) -> None:
    site.plane.create(manifests.deployment("web", namespace, manifests.volume("web-tls")))
    site.order(namespace)

    chain = site.await_ready(namespace)
    site.await_rolled_out(namespace)
    found = site.plane.get("deployments.apps", namespace, "web")

    assert list(marks(found).values()) == [chain.leaf.fingerprint[:16]]
    assert found["metadata"]["generation"] == 2


def test_installation_and_restart_of_the_operator_restart_nobody(site: Site, namespace: str) -> None:
    crt, key = site.ca.certificate(f"web.{namespace}.svc", not_after="24h")
    site.plane.create(manifests.deployment("web", namespace, manifests.volume("web-tls")))
    adopted = manifests.tls_secret("web-tls", namespace, crt, key, annotations=manifests.prefixed(renew="true"))
    site.plane.create(adopted)
    site.await_ready(namespace)
    site.await_rolled_out(namespace)

    site.operator.restart()
    site.order(namespace, "another-tls")
    site.await_ready(namespace, "another-tls")

    assert site.generation(namespace, "web") == 1
    assert site.status(namespace)["restarts"] == "1/1"


def test_opted_out_workloads_are_skipped(site: Site, namespace: str) -> None:
    use = manifests.volume("web-tls")
    site.order(namespace)
    site.await_ready(namespace)
    site.plane.create(manifests.deployment("web", namespace, use))
    site.plane.create(manifests.deployment("calm", namespace, use, annotations=manifests.prefixed(restart="Never")))
    until(lambda: states(site, namespace) == {"Deployment/web": "Healthy", "Deployment/calm": "Skipped"}, 20, "both")

    renewed(site, namespace)

    assert site.generation(namespace, "calm") == 1
    assert site.generation(namespace, "web") == 2
    assert site.status(namespace)["restarts"] == "1/1"


@pytest.mark.parametrize(
    ("restart", "expected"),
    [("Never", {"one": 1, "two": 1}), ("Deployment/two", {"one": 1, "two": 2})],
    ids=["Never", "listed"],
)
def test_the_restart_annotation_chooses(site: Site, namespace: str, restart: str, expected: dict[str, int]) -> None:
    use = manifests.volume("web-tls")
    site.order(namespace, restart=restart)
    site.await_ready(namespace)
    for name in expected:
        site.plane.create(manifests.deployment(name, namespace, use))
    until(lambda: len(states(site, namespace)) == 2, 20, "both workloads known")

    renewed(site, namespace)

    assert {name: site.generation(namespace, name) for name in expected} == expected


def test_rolled_out_is_true_only_when_every_replica_runs_the_certificate(site: Site, namespace: str) -> None:
    workload = manifests.deployment("web", namespace, manifests.volume("web-tls"), replicas=2)
    settled(site, namespace, workload)
    never = {"spec": {"template": {"metadata": {"labels": {manifests.NEVER_READY: "true"}}}}}
    before = site.chain(namespace)

    site.plane.merge_patch("deployments.apps", namespace, "web", never)
    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    site.await_new(namespace, after=before)
    site.await_condition(namespace, kind="RolledOut", status="False", reason="Restarting")
    restarts = site.status(namespace)["restarts"]
    ready = {"spec": {"template": {"metadata": {"labels": {manifests.NEVER_READY: None}}}}}
    site.plane.merge_patch("deployments.apps", namespace, "web", ready)
    site.await_rolled_out(namespace)

    assert restarts == "0/1"
    assert site.status(namespace)["restarts"] == "1/1"


def test_rolled_out_waits_for_controllers_that_have_not_looked_yet(site: Site, namespace: str) -> None:
    settled(site, namespace, manifests.deployment("web", namespace, manifests.volume("web-tls")))
    before = site.chain(namespace)
    controllers = site.plane.process("kube-controller-manager")

    controllers.pause()
    try:
        site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
        site.await_new(namespace, after=before)
        until(lambda: site.generation(namespace, "web") == 2, 20, "the restart")
        site.await_condition(namespace, kind="RolledOut", status="False", reason="Restarting")
    finally:
        controllers.resume()

    site.await_rolled_out(namespace)


def test_replicas_that_are_not_available_are_not_rolled_out(site: Site, namespace: str) -> None:
    workload = manifests.deployment("web", namespace, manifests.volume("web-tls"))
    workload["spec"]["template"]["metadata"]["labels"][manifests.NEVER_READY] = "true"
    site.plane.create(workload)
    until(lambda: site.plane.get("deployments.apps", namespace, "web")["status"].get("updatedReplicas"), 20, "a pod")
    crt, key = site.ca.certificate(f"web.{namespace}.svc", not_after="24h")

    adopted = manifests.tls_secret("web-tls", namespace, crt, key, annotations=manifests.prefixed(renew="true"))
    site.plane.create(adopted)
    site.await_ready(namespace)

    assert site.condition(namespace, kind="RolledOut") == ("False", "Restarting")


def test_two_new_certificates_of_one_workload_are_both_marked(site: Site, namespace: str) -> None:
    for name in ("web-tls", "db-tls"):
        site.order(namespace, name)
        site.await_ready(namespace, name)
    uses = [manifests.volume("web-tls"), manifests.env("db-tls")]
    site.plane.create(manifests.deployment("web", namespace, *uses))
    site.await_rolled_out(namespace, "db-tls")
    before = {name: site.chain(namespace, name) for name in ("web-tls", "db-tls")}

    for name in before:
        site.plane.annotate("secrets", namespace, name, renew_now="1")
    new = {name: site.await_new(namespace, name, after=before[name]) for name in before}
    for name in before:
        site.await_rolled_out(namespace, name)
    found = marks(site.plane.get("deployments.apps", namespace, "web"))

    assert found == {f"certificate.certrenewal.dev/{name}": chain.leaf.fingerprint[:16] for name, chain in new.items()}
    assert site.generation(namespace, "web") <= 3
