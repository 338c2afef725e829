"""What do the tests' stories consist of: servers and clients in pods, from the same manifests that kind gets.

``server(…)`` and ``client(…)`` are the files under ``manifests/`` with other names, kinds and options.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from tests.node.node import Node
from tests.testbed.api import ApiError, Manifest
from tests.testbed.processes import until

APPS = Path(__file__).with_name("apps")
MANIFESTS = Path(__file__).with_name("manifests")
ROOTS = "certrenewal-roots-default"

_PATIENCE = 30
_SEEN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """One connection of a client: the serial that it met, in hexadecimal digits, and the pod; or how it failed."""

    at: str
    seconds: float
    serial: str = ""
    ends: str = ""
    pod: str = ""
    client: str = ""
    error: str = ""

    @property
    def decimal(self) -> str:
        """The serial as status and chains have it; empty where the connection failed."""
        return _decimal(self.serial)

    @property
    def over(self) -> datetime:
        """The moment of its end."""
        return datetime.fromisoformat(self.at) + timedelta(seconds=self.seconds)

    @property
    def shown(self) -> str:
        """The same of the client's own certificate."""
        return _decimal(self.client)


def apps(namespace: str) -> Manifest:
    """The ConfigMap with server and client."""
    data = {file.name: file.read_text() for file in sorted(APPS.glob("*.py")) if file.stem != "__init__"}
    about = {"name": "apps", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data}


def shop(name: str) -> Manifest:
    """A Namespace that asks for the roots."""
    found, _ = _documents("shop.yaml")
    return {**found, "metadata": {**found["metadata"], "name": name}}


def server(
    namespace: str,
    name: str = "web",
    *,
    kind: str = "Deployment",
    secret: str = "web-tls",
    replicas: int = 3,
    reload: str = "never",
    mutual: bool = False,
    annotations: dict[str, str] | None = None,
) -> list[Manifest]:
    """Service and workload; ``reload`` is how the server takes in new files: ``never``, ``watch`` or ``signal``."""
    service, workload = _documents("web.yaml")
    for manifest in (service, workload):
        manifest["metadata"] |= {"name": name, "namespace": namespace}
    service["spec"]["selector"] = {"app": name}
    spec = workload["spec"]
    spec["replicas"] = replicas
    spec["selector"]["matchLabels"] = spec["template"]["metadata"]["labels"] = {"app": name}
    pod = spec["template"]["spec"]
    pod["containers"][0]["args"] = [f"--reload={reload}", *(["--mutual"] if mutual else [])]
    if mutual:  # the kubelet has no certificate to show
        pod["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": "https"}, "periodSeconds": 1}
    _volume(pod, "tls")["secret"]["secretName"] = secret
    workload["metadata"]["annotations"] = annotations or {}
    if kind == "StatefulSet":
        workload["kind"] = kind
        spec["serviceName"] = name
        del spec["strategy"]
    return [service, workload]


def client(
    namespace: str, name: str = "client", *, url: str = "", secret: str = "", each: float = 0.1, mutual: bool = False
) -> Manifest:
    """A bare Pod, which nobody restarts, or with ``mutual`` a Deployment that shows the certificate in ``secret``."""
    (made,) = _documents("client.yaml")
    made["metadata"] = {"name": name, "namespace": namespace, "labels": {"app": name}}
    container = made["spec"]["containers"][0]
    options = [f"--each={each}", *(["--mutual"] if mutual else [])]
    container["args"] = [url or f"https://web.{namespace}.svc", *options]
    if not mutual:
        return made
    made["spec"]["volumes"].append({"name": "tls", "secret": {"secretName": secret}})
    container["volumeMounts"].append({"name": "tls", "mountPath": "/tls", "readOnly": True})
    return _deployment(made)


def open_shop(node: Node, namespace: str) -> None:
    """A namespace with the roots and the programs of the apps, ready for pods."""
    node.create(shop(namespace))
    node.create(apps(namespace))
    until(lambda: node.find("configmaps", namespace, ROOTS), _PATIENCE, f"the roots in {namespace}")


def create(node: Node, *made: Manifest | Sequence[Manifest]) -> None:
    """Create objects, singly or in lists."""
    for entry in made:
        for manifest in [entry] if isinstance(entry, dict) else entry:
            node.create(manifest)


def meetings(node: Node, namespace: str, target: str = "client") -> list[Meeting]:
    """All connections so far, in the order of their beginning, none before the container runs.

    ``target`` may be ``deployment/NAME``: then they are those of its present pod.
    """
    if "/" in target:
        return read_meetings(node.kubectl("logs", "-n", namespace, target, check=False))
    try:
        return read_meetings(node.raw("GET", log_path(namespace, target)))
    except ApiError:
        return []


def read_meetings(log: str) -> list[Meeting]:
    """The connections in what a client has printed, in the order of their beginning."""
    found = (json.loads(line) for line in log.splitlines() if line.startswith("{") and line.endswith("}"))
    return sorted((Meeting(**record) for record in found), key=lambda meeting: meeting.at)


def log_path(namespace: str, pod: str, **options: str) -> str:
    """Where the API serves what a pod has printed; ``follow="true"`` waits for its end."""
    return f"/api/v1/namespaces/{namespace}/pods/{pod}/log?{urlencode(options)}"


def await_well(node: Node, namespace: str, target: str = "client", *, patience: float = _PATIENCE) -> str:
    """Wait until a client meets its server several times in a row, and the moment of the first of these.

    On a busy node, the first packets of a pod may find no route yet: what it misses before is not the server's.
    """
    last: list[Meeting] = []

    def well() -> bool:
        last[:] = meetings(node, namespace, target)[-_SEEN:]
        return len(last) == _SEEN and not failed(last)

    until(well, patience, f"{target} connects")
    return last[0].at


def await_meetings(node: Node, namespace: str, count: int, target: str = "client") -> list[Meeting]:
    """Wait for so many more connections; all so far."""
    before = len(meetings(node, namespace, target))
    found: list[Meeting] = []

    def enough() -> bool:
        found[:] = meetings(node, namespace, target)
        return len(found) >= before + count

    until(enough, _PATIENCE, f"{count} more connections in {namespace}")
    return found


def failed(found: Sequence[Meeting]) -> list[str]:
    """The failures, each with its place among the connections and its moment."""
    return [f"{place} of {len(found)}, {met.at}: {met.error}" for place, met in enumerate(found) if met.error]


def _decimal(serial: str) -> str:
    return str(int(serial, 16)) if serial else ""


def _documents(file: str) -> list[Manifest]:
    return list(_loaded(file))


def _loaded(file: str) -> Iterator[Any]:
    yield from yaml.safe_load_all((MANIFESTS / file).read_text())


def _volume(pod: Manifest, name: str) -> Manifest:
    return next(volume for volume in pod["volumes"] if volume["name"] == name)


def _deployment(pod: Manifest) -> Manifest:
    labels = pod["metadata"]["labels"]
    about = {key: pod["metadata"][key] for key in ("name", "namespace")}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": about,
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod["spec"]},
        },
    }
