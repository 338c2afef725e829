"""Guards: the rollout of a custom resource is complete when what it tells of itself says so, and not before."""

from __future__ import annotations

from typing import Any

import pytest

from certrenewal.domain.progress import Progress, read_progress

DONE = Progress(complete=True)
UNDER_WAY = Progress(complete=False)


def progress(kind: str, group: str, status: dict[str, Any] | None, **spec: Any) -> Progress:
    body = {"metadata": {"generation": 3}, "spec": {"replicas": 2, **spec}, "status": status}
    return read_progress(kind, group, body)


def condition(kind: str, status: str, **more: str) -> dict[str, Any]:
    return {"type": kind, "status": status, **more}


# -- Argo ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param({"observedGeneration": "3", "phase": "Healthy"}, DONE, id="healthy"),
        pytest.param({"observedGeneration": "2", "phase": "Healthy"}, UNDER_WAY, id="healthy before the change"),
        pytest.param({"observedGeneration": 3, "phase": "Healthy"}, DONE, id="a number"),
        pytest.param({"observedGeneration": "6f8d", "phase": "Healthy"}, DONE, id="a hash, as Argo before 1.0"),
        pytest.param({"observedGeneration": "3", "phase": "Progressing"}, UNDER_WAY, id="progressing"),
        pytest.param({"observedGeneration": "2", "phase": "Degraded"}, UNDER_WAY, id="degraded before the change"),
        pytest.param({}, UNDER_WAY, id="nobody has looked"),
        pytest.param(None, UNDER_WAY, id="no status"),
        pytest.param(
            {"observedGeneration": "3", "phase": "Degraded", "message": "RolloutAborted: metric failed"},
            Progress(complete=False, failed="RolloutAborted: metric failed"),
            id="degraded",
        ),
        pytest.param(
            {"observedGeneration": "3", "phase": "Degraded"},
            Progress(complete=False, failed="the Rollout is degraded"),
            id="degraded without a message",
        ),
        pytest.param(
            {"observedGeneration": "3", "phase": "Paused", "message": "CanaryPauseStep"},
            Progress(
                complete=False,
                waits="the Rollout is paused (CanaryPauseStep): promote it to let the new certificate in",
            ),
            id="paused",
        ),
    ],
)
def test_argo_tells_by_its_phase(status: dict[str, Any] | None, expected: Progress) -> None:
    assert progress("Rollout", "argoproj.io", status) == expected


# -- any other -----------------------------------------------------------------------------------------------------

COUNTED = {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}


@pytest.mark.parametrize(
    ("status", "complete"),
    [
        pytest.param(COUNTED, True, id="all counters"),
        pytest.param({**COUNTED, "observedGeneration": 2}, False, id="the change not seen yet"),
        pytest.param({**COUNTED, "updatedReplicas": 1}, False, id="one still old"),
        pytest.param({**COUNTED, "readyReplicas": 1}, False, id="one not ready"),
        pytest.param({**COUNTED, "availableReplicas": 1}, False, id="one not available"),
        pytest.param({"observedGeneration": 3, "readyReplicas": 2}, True, id="one counter alone"),
        pytest.param({"readyReplicas": 1}, False, id="no generation, one not ready"),
        pytest.param({"observedGeneration": 3}, True, id="the generation alone"),
        pytest.param({"observedGeneration": 2}, False, id="the generation alone, not seen"),
        pytest.param({}, True, id="nothing"),
        pytest.param(None, True, id="no status"),
        pytest.param({"conditions": [condition("Ready", "False")]}, False, id="not ready"),
        pytest.param({**COUNTED, "conditions": [condition("Available", "False")]}, False, id="not available"),
        pytest.param({**COUNTED, "conditions": [condition("Reconciling", "True")]}, False, id="being reconciled"),
        pytest.param({"conditions": [condition("Ready", "True")]}, True, id="ready"),
        pytest.param(
            {"desiredNumberScheduled": 5, "updatedNumberScheduled": 4, "numberAvailable": 5}, False, id="as a DaemonSet"
        ),
    ],
)
def test_a_custom_resource_is_judged_by_what_it_has(status: dict[str, Any] | None, complete: bool) -> None:
    assert progress("CloneSet", "apps.kruise.io", status).complete is complete


def test_replicas_that_are_not_asked_for_are_those_that_there_are() -> None:
    body = {"metadata": {}, "spec": {}, "status": {"replicas": 3, "readyReplicas": 2}}

    assert not read_progress("CloneSet", "apps.kruise.io", body).complete


@pytest.mark.parametrize(
    ("found", "failed"),
    [
        (condition("Stalled", "True", message="no quota"), "no quota"),
        (condition("Stalled", "True"), "it is stalled"),
        (condition("Stalled", "False", message="no quota"), None),
        (condition("Progressing", "False", reason="ProgressDeadlineExceeded", message="too late"), "too late"),
    ],
)
def test_a_custom_resource_fails_where_it_says_so(found: dict[str, Any], failed: str | None) -> None:
    assert progress("CloneSet", "apps.kruise.io", {"conditions": [found]}).failed == failed


def test_a_failure_of_an_earlier_generation_is_none_of_this_one() -> None:
    status = {"observedGeneration": 2, "conditions": [condition("Stalled", "True", message="no quota")]}

    assert progress("CloneSet", "apps.kruise.io", status) == UNDER_WAY


def test_a_custom_resource_waits_for_whoever_paused_it() -> None:
    assert progress("CloneSet", "apps.kruise.io", {}, paused=True).waits == (
        "the CloneSet is paused: resume it to let the new certificate in"
    )


@pytest.mark.parametrize("kind", ["CronJob", "Job", "Pod"])
def test_what_is_never_restarted_is_awaited_by_nobody(kind: str) -> None:
    body = {"metadata": {"generation": 3}, "spec": {}, "status": {"observedGeneration": 1}}

    assert read_progress(kind, "batch", body) == DONE


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ({"partition": 1}, "its partition 1 keeps 1 pods"),
        ({"partition": "50%"}, "its partition 50% keeps some pods"),
        ({"rollingUpdate": {"partition": "50%"}}, "its partition 50% keeps some pods"),
        ({"paused": True}, "the CloneSet is paused"),
        ({"partition": "0%"}, None),
    ],
)
def test_a_clone_set_has_its_partition_elsewhere(strategy: dict[str, Any], words: str | None) -> None:
    waits = progress("CloneSet", "apps.kruise.io", {}, replicas=2, updateStrategy=strategy).waits

    assert waits is None if words is None else words in (waits or "")


def test_replicas_may_be_counted_for_each_of_several_parts() -> None:
    status = {"observedGeneration": 3, "replicas": 6, "updatedReplicas": 6, "readyReplicas": 6}

    assert progress("CloneSet", "apps.kruise.io", status).complete


def test_with_a_surge_one_of_before_does_not_count_for_a_new_one() -> None:
    status = {"observedGeneration": 3, "replicas": 3, "updatedReplicas": 2, "readyReplicas": 2}

    assert not progress("CloneSet", "apps.kruise.io", status).complete
