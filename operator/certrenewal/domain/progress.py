"""Is the rollout of a workload complete, has it failed, or does it wait for somebody?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from certrenewal.domain.kinds import ARGO, NOT_RESTARTED

# What the counters of custom resources are called that follow Deployment or DaemonSet.
_COUNTERS = (
    "updatedReplicas",
    "updatedReadyReplicas",
    "readyReplicas",
    "availableReplicas",
    "updatedNumberScheduled",
    "numberAvailable",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a rollout is."""

    complete: bool
    waits: str | None = None  # for somebody to let it go on
    failed: str | None = None


def read_progress(kind: str, group: str, body: Mapping[str, Any]) -> Progress:
    """Read it from a workload as the API server gives it."""
    if kind in NOT_RESTARTED:
        return Progress(complete=True)
    if group == ARGO and kind == "Rollout":
        return _of_argo(body)
    complete = _is_complete(kind, body) if group == "apps" else _is_custom_complete(body)
    # What its controller says of an earlier generation is no news of this rollout.
    failed = (_deadline(body) or _stalled(body)) if _is_observed(body) else None
    return Progress(complete=complete, waits=_waits(kind, body), failed=failed)


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


def _waits(kind: str, body: Mapping[str, Any]) -> str | None:
    strategy = body["spec"].get("updateStrategy") or {}
    if body["spec"].get("paused") or strategy.get("paused"):
        return f"the {kind} is paused: resume it to let the new certificate in"
    if strategy.get("type") == "OnDelete":
        return "its update strategy is OnDelete: delete its pods to let the new certificate in"
    # A StatefulSet's is a number; others, such as OpenKruise's, have it elsewhere, and as a percentage too.
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or strategy.get("partition")
    if partition in (None, 0, "0", "0%"):
        return None
    kept = min(partition, body["spec"].get("replicas", 1)) if isinstance(partition, int) else "some"
    return f"its partition {partition} keeps {kept} pods as they are: lower it to let the new certificate in"


def _deadline(body: Mapping[str, Any]) -> str | None:
    progressing = _condition(body, "Progressing")
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return str(progressing.get("message") or "it does not progress")
    return None


def _of_argo(body: Mapping[str, Any]) -> Progress:
    status = body.get("status") or {}
    if not _is_observed(body):
        return Progress(complete=False)
    phase, words = status.get("phase"), status.get("message")
    match phase:
        case "Degraded":
            return Progress(complete=False, failed=str(words or "the Rollout is degraded"))
        case "Paused":
            paused = f"the Rollout is paused{f' ({words})' if words else ''}"
            return Progress(complete=False, waits=f"{paused}: promote it to let the new certificate in")
    return Progress(complete=phase == "Healthy")


def _is_custom_complete(body: Mapping[str, Any]) -> bool:
    """By what custom resources have in common; one that tells nothing of its rollout is complete at once."""
    if not _is_observed(body) or _condition(body, "Reconciling").get("status") == "True":
        return False
    if any(_condition(body, kind).get("status") == "False" for kind in ("Ready", "Available")):
        return False
    status = body.get("status") or {}
    wanted = status.get("desiredNumberScheduled", body["spec"].get("replicas", status.get("replicas")))
    counted = [status[counter] for counter in _COUNTERS if counter in status]
    if not isinstance(wanted, int):
        return True
    # With a surge, one of before that is ready counts for one that is not ready yet.
    there, updated = status.get("replicas"), status.get("updatedReplicas")
    surplus = isinstance(there, int) and isinstance(updated, int) and there > max(wanted, updated)
    return not surplus and all(number >= wanted for number in counted)


def _stalled(body: Mapping[str, Any]) -> str | None:
    stalled = _condition(body, "Stalled")
    return str(stalled.get("message") or "it is stalled") if stalled.get("status") == "True" else None


def _is_observed(body: Mapping[str, Any]) -> bool:
    """Whether its controller has seen the change, as far as it tells; Argo writes the number as a text."""
    seen = str((body.get("status") or {}).get("observedGeneration", ""))
    return not seen.isdecimal() or int(seen) >= body["metadata"].get("generation", 0)


def _condition(body: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    conditions = (body.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == kind), {})
