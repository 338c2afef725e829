"""Who runs a certificate, with which mark, and is the rollout of it complete?

A workload depends on a Secret that a volume, container or init container of its pod template names. The operator
restarts it by writing the certificate's fingerprint into an annotation of the template: the same certificate
written twice is no second restart, whoever dies in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from certrenewal.domain import annotation
from certrenewal.domain.spec import WorkloadRef

MARK_LENGTH = 16


class State(StrEnum):
    """The words of ``status.workloads[].state``."""

    PENDING = "Pending"
    RESTARTING = "Restarting"
    HEALTHY = "Healthy"
    FAILED = "Failed"
    SKIPPED = "Skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a Deployment, StatefulSet or DaemonSet says of itself."""

    namespace: str
    ref: WorkloadRef
    uid: str
    secrets: frozenset[str]
    marks: Mapping[str, str]
    opted_out: bool
    complete: bool
    waits: str | None  # for somebody to let the rollout go on
    failed: str | None

    def mark_of(self, secret: str) -> str | None:
        """The fingerprint that the pod template is marked with for ``secret``."""
        return self.marks.get(mark_key(secret))


def mark(fingerprint: str) -> str:
    """The text that marks a certificate on a pod template: long enough to be its own, short enough to read."""
    return fingerprint[:MARK_LENGTH]


def mark_key(secret: str) -> str:
    """The annotation for one Secret; a name that is too long for an annotation ends in a hash instead."""
    if len(secret) > 63:
        secret = f"{secret[:52].rstrip('.-')}-{hashlib.sha256(secret.encode()).hexdigest()[:10]}"
    return annotation.MARK_PREFIX + secret


def parse_workload(kind: str, body: Mapping[str, Any]) -> Workload:
    """Read a workload as the API server gives it."""
    metadata = body["metadata"]
    template = body["spec"].get("template") or {}
    marks = (template.get("metadata") or {}).get("annotations") or {}
    own = metadata.get("annotations") or {}
    return Workload(
        namespace=metadata["namespace"],
        ref=WorkloadRef(kind, metadata["name"]),
        uid=metadata["uid"],
        secrets=frozenset(_secrets(template.get("spec") or {})),
        marks={key: value for key, value in marks.items() if key.startswith(annotation.MARK_PREFIX)},
        opted_out=own.get(annotation.RESTART) == "Never",
        complete=_is_complete(kind, body),
        waits=_waits(body),
        failed=_failed(body),
    )


def _secrets(pod: Mapping[str, Any]) -> Iterator[str]:
    for volume in pod.get("volumes") or ():
        yield from _secrets_of_volume(volume)
    for container in [*(pod.get("containers") or ()), *(pod.get("initContainers") or ())]:
        for variable in container.get("env") or ():
            if name := ((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name"):
                yield name
        for source in container.get("envFrom") or ():
            if name := (source.get("secretRef") or {}).get("name"):
                yield name
    for reference in pod.get("imagePullSecrets") or ():
        if name := reference.get("name"):
            yield name


def _secrets_of_volume(volume: Mapping[str, Any]) -> Iterator[str]:
    for kind, source in volume.items():
        if not isinstance(source, Mapping):
            continue
        if kind == "secret" and source.get("secretName"):
            yield source["secretName"]
        for projected in source.get("sources") or ():
            if name := (projected.get("secret") or {}).get("name"):
                yield name
        for reference in ("secretRef", "nodePublishSecretRef"):
            if name := (source.get(reference) or {}).get("name"):
                yield name


def _is_complete(kind: str, body: Mapping[str, Any]) -> bool:
    """As `kubectl rollout status` judges, and every replica available."""
    spec, status = body["spec"], body.get("status") or {}
    if status.get("observedGeneration", 0) < body["metadata"].get("generation", 0):
        return False
    if kind == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        return bool(status.get("updatedNumberScheduled", 0) >= wanted and status.get("numberAvailable", 0) >= wanted)
    wanted = spec.get("replicas", 1)
    complete = (
        status.get("updatedReplicas", 0) >= wanted
        and status.get("availableReplicas", 0) >= wanted
        and status.get("replicas", 0) <= wanted
    )
    on_delete = (spec.get("updateStrategy") or {}).get("type") == "OnDelete"
    if kind == "StatefulSet" and wanted and not on_delete:  # its controller never moves currentRevision on OnDelete
        return bool(complete and status.get("currentRevision") == status.get("updateRevision"))
    return bool(complete)


def _waits(body: Mapping[str, Any]) -> str | None:
    if body["spec"].get("paused"):
        return "the Deployment is paused: resume it to let the new certificate in"
    if (body["spec"].get("updateStrategy") or {}).get("type") == "OnDelete":
        return "its update strategy is OnDelete: delete its pods to let the new certificate in"
    return None


def _failed(body: Mapping[str, Any]) -> str | None:
    for condition in (body.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return str(condition.get("message") or "it does not progress")
    return None
