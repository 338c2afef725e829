"""Who runs a certificate, with which mark, and is the rollout of it complete?

A workload depends on a Secret that a volume, container or init container of its pod template names. The operator
restarts it by writing the certificate's fingerprint into an annotation of the template: the same certificate
written twice is no second restart, whoever dies in between.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from certrenewal.domain import annotation
from certrenewal.domain.spec import WorkloadRef
from certrenewal.domain.window import Window, parse_window

MARK_LENGTH = 16


class State(StrEnum):
    """The words of ``status.workloads[].state``."""

    PENDING = "Pending"
    RESTARTING = "Restarting"
    HEALTHY = "Healthy"
    FAILED = "Failed"
    SKIPPED = "Skipped"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Turn:
    """When a workload is restarted among those that use the same certificate: the canary, then wave after wave."""

    follows: bool  # False for the canary
    order: int

    def __str__(self) -> str:
        return f"wave {self.order}" if self.follows else "the canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a Deployment, StatefulSet or DaemonSet says of itself."""

    namespace: str
    ref: WorkloadRef
    uid: str
    secrets: frozenset[str]
    marks: Mapping[str, str]
    opted_out: bool
    turn: Turn
    window: Window | None
    fault: str | None  # an annotation of ours that cannot be read
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
    fault, wish = _wish(own)
    return Workload(
        namespace=metadata["namespace"],
        ref=WorkloadRef(kind, metadata["name"]),
        uid=metadata["uid"],
        secrets=frozenset(_secrets(template.get("spec") or {})),
        marks={key: value for key, value in marks.items() if key.startswith(annotation.MARK_PREFIX)},
        **wish,
        fault=fault,
        complete=_is_complete(kind, body),
        waits=_waits(body),
        failed=_failed(body),
    )


def _wish(own: Mapping[str, str]) -> tuple[str | None, dict[str, Any]]:
    """What the annotations ask for, and why it cannot be read, where it cannot."""
    try:
        _known(own)
        wish = {
            "opted_out": _word(own, annotation.RESTART, {"Auto": False, "Never": True}, "Auto"),
            "turn": Turn(
                follows=not _word(own, annotation.RESTART_CANARY, {"true": True, "false": False}, "false"),
                order=_number(own, annotation.RESTART_ORDER),
            ),
            "window": _window(own),
        }
    except ValueError as refusal:
        return str(refusal), {"opted_out": False, "turn": _ANY_TURN, "window": None}
    return None, wish


def _known(own: Mapping[str, str]) -> None:
    for key in sorted(own):
        if key.startswith(annotation.PREFIX) and key not in annotation.ON_WORKLOADS:
            known = ", ".join(sorted(k.removeprefix(annotation.PREFIX) for k in annotation.ON_WORKLOADS))
            raise ValueError(f"annotation {key}: there is no such annotation on a workload; there are {known}")


_ANY_TURN = Turn(follows=True, order=0)


def _word(own: Mapping[str, str], key: str, words: Mapping[str, bool], default: str) -> bool:
    text = own.get(key, default)
    if text not in words:
        choice = " or ".join(f'"{word}"' for word in words)
        raise ValueError(f"annotation {key}: {text!r} cannot be read: write {choice}")
    return words[text]


def _number(own: Mapping[str, str], key: str) -> int:
    text = own.get(key, "0")
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"annotation {key}: {text!r} cannot be read: write a whole number such as 10 or -1")
    return int(text)


_INTEGER = re.compile(r"[-+]?[0-9]{1,9}")


def _window(own: Mapping[str, str]) -> Window | None:
    text = own.get(annotation.RESTART_WINDOW)
    try:
        return parse_window(text) if text is not None else None
    except ValueError as refusal:
        raise ValueError(f"annotation {annotation.RESTART_WINDOW}: {text!r} cannot be read: {refusal}") from None


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
    partition = ((body["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}).get("partition") or 0
    if partition:
        kept = min(partition, body["spec"].get("replicas", 1))
        return f"its partition {partition} keeps {kept} pods as they are: lower it to let the new certificate in"
    return None


def _failed(body: Mapping[str, Any]) -> str | None:
    for condition in (body.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return str(condition.get("message") or "it does not progress")
    return None
