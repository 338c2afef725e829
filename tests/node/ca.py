"""Where does a certificate authority run that pods can reach: step-ca in a pod, its objects named as its own chart names them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.node import images
from tests.node.node import Node
from tests.testbed import manifests
from tests.testbed.api import Manifest
from tests.testbed.processes import until
from tests.testbed.stepca import Issuer, StepCA

NAMESPACE = "step"
NAME = "step-certificates"
HOST = f"{NAME}.{NAMESPACE}.svc.cluster.local"
URL = f"https://{HOST}"
PASSWORD = {"namespace": NAMESPACE, "name": f"{NAME}-provisioner-password", "key": "password"}

_PORT = 9000
_HOME = "/home/step"
_LABELS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": NAME}
_OWN_AGENTS = ("kube-probe", "testbed")


class PodCA:
    """One CA: its files are made and edited here, its pod runs what was published last."""

    def __init__(self, node: Node, folder: Path, **options: Any) -> None:
        """Make keys and ca.json; ``options`` as StepCA takes them. Nothing is in the cluster before ``start``."""
        self.node = node
        self.files = StepCA(folder, name="Node", dns=(HOST, "127.0.0.1"), **options)
        self.fingerprint = self.files.fingerprint
        self.provisioner = self.files.provisioner
        self.password = self.files.password

    def start(self) -> None:
        """Create its objects and return when it answers."""
        self.node.apply(manifests.namespace(NAMESPACE))
        self._apply_files()
        for manifest in (_service(), _stateful_set()):
            self.node.apply(manifest)
        self.await_ready()

    def stop(self) -> None:
        """No pod, until ``resume``; its Service refuses."""
        self._scale(0)
        until(lambda: not self.node.objects("pods", NAMESPACE), 40, "no pod of step-ca")

    def resume(self) -> None:
        """A pod again, with an empty database."""
        self._scale(1)
        self.await_ready()

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change ca.json and have a new pod read it."""
        self.files.edit(change)
        self.publish()

    def issue_by(self, issuer: Issuer, *, roots: Sequence[Issuer], federated: Sequence[Issuer] = ()) -> None:
        """As StepCA's, with a new pod; ``files.make_issuer`` makes issuers."""
        self.files.issue_by(issuer, roots=roots, federated=federated)
        self.publish()

    def publish(self) -> None:
        """Have a new pod run the files as they are now."""
        self._apply_files()
        before = {pod["metadata"]["uid"] for pod in self.node.objects("pods", NAMESPACE)}
        self.node.kubectl("delete", "pod", "-n", NAMESPACE, f"{NAME}-0", "--wait=false", "--grace-period=1")
        until(
            lambda: before.isdisjoint(p["metadata"]["uid"] for p in self.node.objects("pods", NAMESPACE)),
            40,
            "a new pod",
        )
        self.await_ready()

    def await_ready(self) -> None:
        """Return when its pod answers."""
        self.node.await_rollout(NAMESPACE, f"statefulset/{NAME}")

    def calls(self) -> list[dict[str, Any]]:
        """One record per request that its present container served; probes are left out."""
        lines = self.node.logs(NAMESPACE, f"statefulset/{NAME}").splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [record for record in records if "path" in record and not record["user-agent"].startswith(_OWN_AGENTS)]

    def authority(self, **more: Any) -> Manifest:
        """The chart's ``authority`` values."""
        return {
            "create": True,
            "url": URL,
            "fingerprint": self.fingerprint,
            "provisioner": {"name": self.provisioner, "passwordSecretRef": PASSWORD},
            **more,
        }

    def _scale(self, replicas: int) -> None:
        self.node.merge_patch("statefulsets.apps", NAMESPACE, NAME, {"spec": {"replicas": replicas}})

    def _apply_files(self) -> None:
        folder = self.files.folder
        password = {"password": self.password}
        for manifest in (
            _config_map(f"{NAME}-config", {"ca.json": self._ca_json(), "defaults.json": self._defaults()}),
            _config_map(f"{NAME}-certs", _texts(folder / "certs")),
            manifests.secret(f"{NAME}-secrets", NAMESPACE, _texts(folder / "secrets")),
            manifests.secret(f"{NAME}-ca-password", NAMESPACE, password),
            manifests.secret(f"{NAME}-provisioner-password", NAMESPACE, password),
        ):
            self.node.apply(manifest)

    def _ca_json(self) -> str:
        config = json.loads(self.files.config_file.read_text().replace(str(self.files.folder), _HOME))
        config["address"] = f":{_PORT}"
        return json.dumps(config, indent=1)

    def _defaults(self) -> str:
        return json.dumps({"ca-url": URL, "fingerprint": self.fingerprint, "root": f"{_HOME}/certs/root_ca.crt"})


def _texts(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(folder.iterdir()) if file.is_file()}


def _config_map(name: str, data: dict[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": _LABELS},
        "data": data,
    }


def _service() -> Manifest:
    ports = [{"name": "https", "port": 443, "targetPort": _PORT}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": _LABELS},
        "spec": {"ports": ports, "selector": _LABELS},
    }


def _stateful_set() -> Manifest:
    volumes: dict[str, Manifest] = {
        "config": {"configMap": {"name": f"{NAME}-config"}},
        "certs": {"configMap": {"name": f"{NAME}-certs"}},
        "secrets": {"secret": {"secretName": f"{NAME}-secrets"}},
        "ca-password": {"secret": {"secretName": f"{NAME}-ca-password"}},
        "db": {"emptyDir": {}},
    }
    container = {
        "name": NAME,
        "image": images.STEP_CA.removeprefix("docker.io/"),
        "imagePullPolicy": "Never",
        "args": [f"{_HOME}/config/ca.json", f"--password-file={_HOME}/ca-password/password"],
        "env": [{"name": "STEPPATH", "value": _HOME}, {"name": "HOME", "value": _HOME}],
        "ports": [{"name": "https", "containerPort": _PORT}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": _PORT, "scheme": "HTTPS"}, "periodSeconds": 1},
        "volumeMounts": [{"name": name, "mountPath": f"{_HOME}/{name}"} for name in volumes],
    }
    pod = {
        "terminationGracePeriodSeconds": 2,
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
        "containers": [container],
        "volumes": [{"name": name, **source} for name, source in volumes.items()],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": _LABELS},
        "spec": {
            "replicas": 1,
            "serviceName": NAME,
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": pod},
        },
    }
