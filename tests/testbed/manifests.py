"""How do tests write their objects: builders for Secrets, workloads, CertRenewals and CertAuthorities.

A workload's uses of a Secret are values: ``deployment("web", "shop", volume("web-tls"), env("db-tls"))``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.testbed.api import Manifest
from tests.testbed.controlplane import NODE
from tests.testbed.stepca import StepCA

API_VERSION = "certrenewal.dev/v1alpha1"
PREFIX = "certrenewal.dev/"
NEVER_READY = "testbed.certrenewal.dev/never-ready"
READY_AFTER = "testbed.certrenewal.dev/ready-after"

Use = Callable[[Manifest], None]


def prefixed(**values: str) -> dict[str, str]:
    """Annotations under ``certrenewal.dev/``: ``renew_before="4h"`` is ``certrenewal.dev/renew-before``."""
    return {PREFIX + key.replace("_", "-"): value for key, value in values.items()}


def namespace(name: str, **labels: str) -> Manifest:
    """A Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def secret(
    name: str,
    namespace: str,
    data: Mapping[str, str | bytes] | None = None,
    *,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    kind: str = "Opaque",
    immutable: bool = False,
) -> Manifest:
    """A Secret; ``data`` as text or bytes."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": _about(name, namespace, annotations, labels),
        "data": {key: encoded(value) for key, value in (data or {}).items()},
        **({"immutable": True} if immutable else {}),
    }


def tls_secret(name: str, namespace: str, chain: str, key: str, ca: str = "", **options: Any) -> Manifest:
    """A Secret that holds a certificate under the usual keys, of type kubernetes.io/tls."""
    data = {"tls.crt": chain, "tls.key": key, **({"ca.crt": ca} if ca else {})}
    return secret(name, namespace, data, kind="kubernetes.io/tls", **options)


def encoded(value: str | bytes) -> str:
    """A value as a Secret's ``data`` holds it."""
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def decoded(found: Manifest, key: str) -> bytes:
    """One value of a Secret's ``data``; KeyError where it is absent."""
    return base64.b64decode(found.get("data", {})[key])


def volume(secret: str) -> Use:
    """The Secret as a volume."""

    def use(pod: Manifest) -> None:
        _add_volume(pod, {"name": secret, "secret": {"secretName": secret}})

    return use


def projected(secret: str) -> Use:
    """The Secret as one source of a projected volume."""

    def use(pod: Manifest) -> None:
        sources = [{"secret": {"name": secret}}, {"downwardAPI": {"items": []}}]
        _add_volume(pod, {"name": f"{secret}-projected", "projected": {"sources": sources}})

    return use


def env(secret: str, key: str = "tls.crt") -> Use:
    """One key of the Secret in an environment variable."""
    return lambda pod: _add_variable(pod["containers"][0], secret, key)


def env_from(secret: str) -> Use:
    """All keys of the Secret in the environment."""

    def use(pod: Manifest) -> None:
        pod["containers"][0].setdefault("envFrom", []).append({"secretRef": {"name": secret}})

    return use


def init(secret: str, key: str = "tls.crt") -> Use:
    """The Secret in an environment variable of an init container alone."""

    def use(pod: Manifest) -> None:
        container = {"name": f"init-{secret}", "image": "registry.example.com/init:1"}
        _add_variable(container, secret, key)
        pod.setdefault("initContainers", []).append(container)

    return use


def pull(secret: str) -> Use:
    """The Secret as an image pull secret, which is no dependency on a certificate."""

    def use(pod: Manifest) -> None:
        pod.setdefault("imagePullSecrets", []).append({"name": secret})

    return use


def deployment(name: str, namespace: str, *uses: Use, replicas: int = 1, **options: Any) -> Manifest:
    """A Deployment; ``options`` as ``workload`` takes them."""
    return workload("Deployment", name, namespace, *uses, spec={"replicas": replicas}, **options)


def stateful_set(name: str, namespace: str, *uses: Use, replicas: int = 1, **options: Any) -> Manifest:
    """A StatefulSet."""
    spec = {"replicas": replicas, "serviceName": name}
    return workload("StatefulSet", name, namespace, *uses, spec=spec, **options)


def daemon_set(name: str, namespace: str, *uses: Use, **options: Any) -> Manifest:
    """A DaemonSet; the testbed has one node, tainted for ever as nobody there looks after nodes."""
    made = workload("DaemonSet", name, namespace, *uses, spec={}, **options)
    made["spec"]["template"]["spec"]["tolerations"] = [{"operator": "Exists"}]
    return made


def workload(
    kind: str,
    name: str,
    namespace: str,
    *uses: Use,
    spec: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
    never_ready: bool = False,
    ready_after: str = "",
) -> Manifest:
    """A workload whose pods run at once, become ready only after ``ready_after``, or never do."""
    pod: Manifest = {"nodeName": NODE, "containers": [{"name": "main", "image": "registry.example.com/app:1"}]}
    for use in uses:
        use(pod)
    labels = {"app": name, **({NEVER_READY: "true"} if never_ready else {})}
    about = {"labels": labels, "annotations": {READY_AFTER: ready_after} if ready_after else {}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": _about(name, namespace, annotations, {"app": name}),
        "spec": {
            **spec,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": about, "spec": pod},
        },
    }


def cert_renewal(
    name: str,
    namespace: str,
    spec: Mapping[str, Any],
    *,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Manifest:
    """A CertRenewal as written by hand; ``spec`` in the API's own words."""
    return {
        "apiVersion": API_VERSION,
        "kind": "CertRenewal",
        "metadata": _about(name, namespace, annotations, labels),
        "spec": dict(spec),
    }


def cert_authority(
    name: str,
    ca: StepCA,
    *,
    password: tuple[str, str] | None,
    policy: Sequence[Mapping[str, Any]] = (),
    **spec: Any,
) -> Manifest:
    """A CertAuthority for ``ca``; ``password`` is namespace and name of the Secret (None: renew-only)."""
    provisioner: Manifest = {}
    if password is not None:
        reference = {"namespace": password[0], "name": password[1], "key": "password"}
        provisioner = {"provisioner": {"name": ca.provisioner, "passwordSecretRef": reference}}
    about = {"url": ca.url, "fingerprint": ca.fingerprint, **provisioner, "policy": [dict(rule) for rule in policy]}
    return {
        "apiVersion": API_VERSION,
        "kind": "CertAuthority",
        "metadata": {"name": name},
        "spec": {**about, **spec},
    }


def _about(
    name: str, namespace: str, annotations: Mapping[str, str] | None, labels: Mapping[str, str] | None
) -> Manifest:
    return {
        "name": name,
        "namespace": namespace,
        "annotations": dict(annotations or {}),
        "labels": dict(labels or {}),
    }


def _add_volume(pod: Manifest, volume: Manifest) -> None:
    pod.setdefault("volumes", []).append(volume)
    mount = {"name": volume["name"], "mountPath": f"/run/{volume['name']}"}
    pod["containers"][0].setdefault("volumeMounts", []).append(mount)


def _add_variable(container: Manifest, secret: str, key: str) -> None:
    variable = f"{secret}_{key}".replace("-", "_").replace(".", "_").upper()
    source = {"secretKeyRef": {"name": secret, "key": key}}
    container.setdefault("env", []).append({"name": variable, "valueFrom": source})
