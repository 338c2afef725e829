"""A workload that reloads on a signal gets it once its files are there, and never a restart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.site import Site, installed
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.api import Manifest
from tests.testbed.controlplane import ControlPlane
from tests.testbed.manifests import Use
from tests.testbed.processes import until

MARK = "certificate.certrenewal.dev/web-tls"


@pytest.fixture(scope="module")
def signalling(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """The operator with the right to run commands in pods, and not to touch them: each test plays the kubelet."""
    values = {"restarts": {"signal": True, "touchPods": False, "cooldown": "0s"}}
    with installed(plane, make_ca(backdate="0s"), values=values) as running:
        yield running


@dataclass(frozen=True)
class Kubelet:
    """The files that the containers of a test see, brought when the test says so."""

    site: Site
    namespace: str
    folder: Path

    def deliver(self) -> None:
        """Bring the certificate that the Secret holds now. There is no key: nobody has to read it."""
        new = self.folder / ".new"
        new.write_bytes(manifests.decoded(self.site.secret(self.namespace), "tls.crt"))
        new.rename(self.folder / "tls.crt")

    def mount(self) -> Use:
        """The Secret as a volume, at the folder of these files."""

        def use(pod: Manifest) -> None:
            manifests.volume("web-tls")(pod)
            pod["containers"][0]["volumeMounts"][0]["mountPath"] = str(self.folder)

        return use


@pytest.fixture
def kubelet(signalling: Site, namespace: str, tmp_path: Path) -> Kubelet:
    """A certificate that is there, and files that are the Secret's."""
    signalling.order(namespace)
    signalling.await_ready(namespace)
    found = Kubelet(signalling, namespace, tmp_path)
    found.deliver()
    return found


def deployment(namespace: str, use: Use, *, replicas: int = 1, **annotations: str) -> Manifest:
    """Deployment web, which reloads on a signal."""
    wish = manifests.prefixed(restart="Signal", **annotations)
    return manifests.deployment("web", namespace, use, replicas=replicas, annotations=wish)


def standing(site: Site, namespace: str) -> dict[str, Any]:
    """The one workload of status."""
    workloads = site.status(namespace).get("workloads") or [{}]
    return dict(workloads[0])


def await_state(site: Site, namespace: str, state: str, patience: float = 20) -> str:
    """Wait for the state of the one workload; its message."""
    until(lambda: standing(site, namespace).get("state") == state, patience, f"the workload is {state}")
    return str(standing(site, namespace).get("message", ""))


def renew(site: Site, namespace: str) -> str:
    """Have a new certificate written; its mark."""
    before = site.chain(namespace)
    site.plane.annotate("secrets", namespace, "web-tls", renew_now=before.leaf.serial)
    return site.await_new(namespace, after=before).leaf.fingerprint[:16]


def own_mark(site: Site, namespace: str) -> str | None:
    """The mark on the Deployment itself."""
    annotations: dict[str, str] = site.plane.get("deployments.apps", namespace, "web")["metadata"]["annotations"]
    return annotations.get(MARK)


def pod_marks(site: Site, namespace: str) -> list[str | None]:
    """The mark on each pod."""
    pods = site.plane.objects("pods", namespace)
    return [(pod["metadata"].get("annotations") or {}).get(MARK) for pod in pods]


def pods(site: Site, namespace: str) -> set[str]:
    """The pods, each by its own id: after a restart they are others."""
    return {pod["metadata"]["uid"] for pod in site.plane.objects("pods", namespace)}


# -- signals ----------------------------------------------------------------------------------------------------------


def test_a_signal_is_sent_once_the_files_are_there(kubelet: Kubelet) -> None:
    site, namespace = kubelet.site, kubelet.namespace
    site.plane.create(deployment(namespace, kubelet.mount(), replicas=2, reload_signal="SIGUSR1"))
    await_state(site, namespace, "Healthy")
    running, sent = pods(site, namespace), len(site.plane.signals())

    mark = renew(site, namespace)
    await_state(site, namespace, "Pending")
    before_delivery = site.plane.signals()[sent:]
    kubelet.deliver()
    await_state(site, namespace, "Healthy")

    assert before_delivery == []
    assert site.plane.signals()[sent:] == ["-s USR1 1"] * 2
    assert own_mark(site, namespace) == mark
    assert pods(site, namespace) == running
    assert pod_marks(site, namespace) == [None, None]
    until(lambda: site.events(namespace, "web", "Reloaded"), 10, "told")
    assert [event["type"] for event in site.events(namespace, "web", "Reloaded")] == ["Normal"]
    assert site.condition(namespace, kind="RolledOut") == ("True", "RolledOut")
    assert site.operator.metric("certrenewal_reloads_total", kind="Deployment") >= 1


def test_a_command_of_the_users_own_runs_instead(kubelet: Kubelet) -> None:
    site, namespace = kubelet.site, kubelet.namespace
    command = f'["/bin/sh", "-c", "echo again >> {kubelet.folder}/ran"]'
    site.plane.create(deployment(namespace, kubelet.mount(), reload_command=command))
    await_state(site, namespace, "Healthy")
    running = pods(site, namespace)

    renew(site, namespace)
    kubelet.deliver()
    until(lambda: own_mark(site, namespace) is not None, 20, "the mark")
    site.operator.restart()
    site.await_rolled_out(namespace)

    assert (kubelet.folder / "ran").read_text() == "again\n"
    assert pods(site, namespace) == running


def test_a_command_that_fails_is_told_with_its_words_and_logged_without(kubelet: Kubelet) -> None:
    site, namespace = kubelet.site, kubelet.namespace
    command = "/bin/sh -c 'echo no such worker >&2; exit 3'"
    site.plane.create(deployment(namespace, kubelet.mount(), reload_command=command))
    await_state(site, namespace, "Healthy")

    renew(site, namespace)
    kubelet.deliver()
    message = await_state(site, namespace, "Failed")

    first, output = message.split("\n")
    assert first.endswith("container main: /bin/sh failed")  # kwok does not tell the exit code, as a kubelet does
    assert output == "no such worker"
    assert own_mark(site, namespace) is None
    until(lambda: site.condition(namespace, kind="RolledOut") == ("False", "RestartFailed"), 20, "it is told")
    until(lambda: site.events(namespace, "web", "RestartFailed"), 20, "an Event")
    assert "no such worker" not in site.operator.log_text()


def test_a_program_that_the_container_does_not_have_is_named(kubelet: Kubelet) -> None:
    site, namespace = kubelet.site, kubelet.namespace
    site.plane.create(deployment(namespace, kubelet.mount(), reload_command="nginx -s reload"))
    await_state(site, namespace, "Healthy")

    renew(site, namespace)
    kubelet.deliver()

    assert "nginx" in await_state(site, namespace, "Failed")


def test_a_container_that_does_not_exist_is_named_before_anything_is_due(kubelet: Kubelet) -> None:
    site, namespace = kubelet.site, kubelet.namespace

    site.plane.create(deployment(namespace, kubelet.mount(), reload_container="nobody"))

    message = await_state(site, namespace, "Failed")
    assert "certrenewal.dev/reload-container" in message
    assert "write one of main" in message


@pytest.mark.parametrize(
    "use", [manifests.env("web-tls"), manifests.env_from("web-tls")], ids=["variable", "all variables"]
)
def test_what_only_a_restart_renews_cannot_be_signalled(signalling: Site, namespace: str, use: Use) -> None:
    signalling.order(namespace)

    signalling.plane.create(deployment(namespace, use))

    message = await_state(signalling, namespace, "Failed")
    assert "container main has web-tls in its environment" in message
    assert 'certrenewal.dev/restart: "Auto"' in message
