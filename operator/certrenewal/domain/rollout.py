"""Who runs a certificate, and with which mark?

A workload depends on a Secret that a volume, container or init container of its pod template names. The operator
restarts it by writing the certificate's fingerprint into an annotation of the template: the same certificate
written twice is no second restart, whoever dies in between. A workload that reloads on a signal carries that annotation
itself, as a template that changes is a restart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from certrenewal.domain import annotation
from certrenewal.domain.kinds import BUILT_IN, NOT_RESTARTED, Owner, Resource, is_over, owner_of, template_of
from certrenewal.domain.progress import read_progress
from certrenewal.domain.reload import Consumption, Reload, parse_consumption, parse_reload
from certrenewal.domain.spec import WorkloadRef
from certrenewal.domain.stakater import Reloader, read_reloader
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
    """What an object with a pod template says of itself."""

    namespace: str
    ref: WorkloadRef
    resource: Resource
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
    reload: Reload | None = None  # how it takes new files in without a restart
    consumption: Consumption = field(default_factory=Consumption)
    has_template: bool = True
    owner: Owner | None = None
    through: WorkloadRef | None = None  # the owner that is restarted in its place
    reloader: Reloader | None = None  # None: nobody asks for what Reloader would do
    version: int = field(default=0, compare=False)

    @property
    def can_be_restarted(self) -> bool:
        """Whether there is a template to write a mark into, for pods that run on."""
        return self.has_template and self.ref.kind not in NOT_RESTARTED

    @property
    def leans_on_owner(self) -> bool:
        """Whether its owner is to be restarted in its place: it would undo what is written into the template."""
        return self.can_be_restarted and not self.opted_out and self.fault is None and self.reload is None

    def mark_of(self, secret: str) -> str | None:
        """The fingerprint of the certificate in ``secret`` that the workload was brought to."""
        return self.marks.get(mark_key(secret))

    def needs_restart(self, secret: str, keys: frozenset[str]) -> str | None:
        """Why new values under these keys of the Secret need a restart, None where they do not."""
        return self.consumption.needs_restart(secret, keys)


def mark(fingerprint: str) -> str:
    """The text that marks a certificate on a pod template: long enough to be its own, short enough to read."""
    return fingerprint[:MARK_LENGTH]


def mark_key(secret: str) -> str:
    """The annotation for one Secret; a name that is too long for an annotation ends in a hash instead."""
    if len(secret) > 63:
        secret = f"{secret[:52].rstrip('.-')}-{hashlib.sha256(secret.encode()).hexdigest()[:10]}"
    return annotation.MARK_PREFIX + secret


def parse_workload(
    kind: str, body: Mapping[str, Any], resource: Resource | None = None, *, as_reloader: bool = False
) -> Workload:
    """Read a workload as the API server gives it; ``as_reloader``: it is restarted where Reloader would."""
    metadata = body["metadata"]
    resource = resource or BUILT_IN[kind]
    template = template_of(kind, body)
    pod = template.get("spec") or {}
    own = metadata.get("annotations") or {}
    fault, wish = _wish(own, pod)
    progress = read_progress(kind, resource.group, body)
    marks = own if wish["reload"] else (template.get("metadata") or {}).get("annotations") or {}
    return Workload(
        namespace=metadata["namespace"],
        ref=WorkloadRef(kind, metadata["name"]),
        resource=resource,
        uid=metadata["uid"],
        secrets=frozenset() if is_over(kind, body) else frozenset(_secrets(pod)),
        marks={key: value for key, value in marks.items() if key.startswith(annotation.MARK_PREFIX)},
        **wish,
        fault=fault,
        complete=progress.complete,
        waits=progress.waits,
        failed=progress.failed,
        consumption=parse_consumption(body["spec"].get("selector") or {}, pod),
        has_template=bool(template),
        owner=owner_of(metadata),
        reloader=read_reloader(own, template) if as_reloader else None,
        version=int(metadata.get("resourceVersion") or 0),
    )


def _wish(own: Mapping[str, str], pod: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """What the annotations ask for, and why it cannot be read, where it cannot."""
    try:
        _known(own)
        mode = _word(own, annotation.RESTART, ("Auto", "Never", "Signal"), "Auto")
        wish = {
            "opted_out": mode == "Never",
            "turn": Turn(
                follows=_word(own, annotation.RESTART_CANARY, ("true", "false"), "false") == "false",
                order=_number(own, annotation.RESTART_ORDER),
            ),
            "window": _window(own),
            "reload": parse_reload(own, pod) if mode == "Signal" else None,
        }
    except ValueError as refusal:
        return str(refusal), {"opted_out": False, "turn": _ANY_TURN, "window": None, "reload": None}
    return None, wish


def _known(own: Mapping[str, str]) -> None:
    for key in sorted(own):
        if key.startswith(annotation.PREFIX) and key not in annotation.ON_WORKLOADS:
            known = ", ".join(sorted(k.removeprefix(annotation.PREFIX) for k in annotation.ON_WORKLOADS))
            raise ValueError(f"annotation {key}: there is no such annotation on a workload; there are {known}")


_ANY_TURN = Turn(follows=True, order=0)


def _word(own: Mapping[str, str], key: str, words: tuple[str, ...], default: str) -> str:
    text = own.get(key, default)
    if text not in words:
        *others, last = (f'"{word}"' for word in words)
        raise ValueError(f"annotation {key}: {text!r} cannot be read: write {', '.join(others)} or {last}")
    return text


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
