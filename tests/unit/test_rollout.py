"""Guards: every way to use a Secret is seen, completeness is judged per kind, and a mark names one certificate."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.domain import annotation
from certrenewal.domain.rollout import Turn, Workload, mark, mark_key, parse_workload
from certrenewal.domain.spec import WorkloadRef
from certrenewal.domain.window import parse_window
from tests.unit.builders import a_workload


def a_body(pod: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A workload as the API server gives it; ``changes`` replace whole parts."""
    parts = {
        "metadata": {"namespace": "shop", "name": "web", "uid": "w1", "generation": 3},
        "spec": {"replicas": 2, "template": {"metadata": {}, "spec": pod or {"containers": [{"name": "web"}]}}},
        "status": {},
    }
    return {**parts, **changes}


# -- who uses a Secret ---------------------------------------------------------------------------------------------


def volume(source: dict[str, Any]) -> dict[str, Any]:
    return {"containers": [{"name": "web"}], "volumes": [{"name": "v", **source}]}


def container(part: dict[str, Any], kind: str = "containers") -> dict[str, Any]:
    return {"containers": [{"name": "web"}], kind: [{"name": "c", **part}]}


ENV = {"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "web-tls", "key": "tls.key"}}}]}
ENV_FROM = {"envFrom": [{"prefix": "TLS_", "secretRef": {"name": "web-tls"}}]}


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(volume({"secret": {"secretName": "web-tls"}}), id="volume"),
        pytest.param(volume({"secret": {"secretName": "web-tls", "optional": True}}), id="optional volume"),
        pytest.param(volume({"projected": {"sources": [{"secret": {"name": "web-tls"}}]}}), id="projected volume"),
        pytest.param(
            volume({"projected": {"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "web-tls"}}]}}),
            id="second source of a projected volume",
        ),
        pytest.param(volume({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "web-tls"}}}), id="CSI"),
        pytest.param(
            volume({"cephfs": {"monitors": ["m"], "secretRef": {"name": "web-tls"}}}), id="storage's secretRef"
        ),
        pytest.param(container(ENV), id="variable"),
        pytest.param(container(ENV_FROM), id="variables of a whole Secret"),
        pytest.param(container(ENV, "initContainers"), id="variable of an init container"),
        pytest.param(container(ENV_FROM, "initContainers"), id="whole Secret of an init container"),
        pytest.param({"containers": [{"name": "a"}, {"name": "b", **ENV}]}, id="second container"),
        pytest.param({"containers": [], "imagePullSecrets": [{"name": "web-tls"}]}, id="image pulls"),
    ],
)
def test_every_way_to_use_a_secret_makes_a_dependent(pod: dict[str, Any]) -> None:
    assert parse_workload("Deployment", a_body(pod)).secrets == {"web-tls"}


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"containers": None, "volumes": None, "initContainers": None}, id="nulls"),
        pytest.param(volume({"configMap": {"name": "web-tls"}}), id="ConfigMap of that name"),
        pytest.param(volume({"emptyDir": {}}), id="empty directory"),
        pytest.param({"volumes": [{"name": "web-tls"}], "containers": [{"name": "web-tls"}]}, id="its own names"),
        pytest.param(container({"env": [{"name": "A", "value": "web-tls"}]}), id="plain variable"),
        pytest.param(
            container({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "web-tls"}}}]}),
            id="ConfigMap key",
        ),
        pytest.param(container({"envFrom": [{"configMapRef": {"name": "web-tls"}}]}), id="variables of a ConfigMap"),
        pytest.param({"serviceAccountName": "web-tls", "containers": []}, id="service account"),
    ],
)
def test_what_is_no_secret_makes_no_dependent(pod: dict[str, Any]) -> None:
    assert parse_workload("Deployment", a_body(pod)).secrets == frozenset()


def test_all_secrets_of_a_pod_are_found() -> None:
    pod = {
        **volume({"secret": {"secretName": "a"}}),
        "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "b"}}]}],
        "imagePullSecrets": [{"name": "c"}],
    }

    assert parse_workload("DaemonSet", a_body(pod)).secrets == {"a", "b", "c"}


# -- what it says of itself ----------------------------------------------------------------------------------------


def test_a_workload_is_read() -> None:
    workload = parse_workload("StatefulSet", a_body())

    assert (workload.namespace, workload.ref, workload.uid) == ("shop", WorkloadRef("StatefulSet", "web"), "w1")


@pytest.mark.parametrize(
    ("annotations", "opted_out"),
    [
        pytest.param(None, False, id="none"),
        pytest.param({annotation.RESTART: "Never"}, True, id="Never"),
        pytest.param({annotation.RESTART: "Auto"}, False, id="Auto"),
        pytest.param({"example.com/restart": "Never"}, False, id="somebody else's"),
    ],
)
def test_a_workload_can_keep_itself_from_being_restarted(annotations: dict[str, str] | None, opted_out: bool) -> None:
    body = a_body()
    body["metadata"]["annotations"] = annotations

    assert parse_workload("Deployment", body).opted_out is opted_out


def test_the_word_on_the_pod_template_keeps_nobody() -> None:
    body = a_body()
    body["spec"]["template"]["metadata"] = {"annotations": {annotation.RESTART: "Never"}}

    assert not parse_workload("Deployment", body).opted_out


def test_only_our_marks_are_kept() -> None:
    body = a_body()
    body["spec"]["template"]["metadata"] = {
        "annotations": {mark_key("web-tls"): "abcd", "kubectl.kubernetes.io/restartedAt": "now"}
    }
    body["metadata"]["annotations"] = {mark_key("other"): "not on the template"}

    workload = parse_workload("Deployment", body)

    assert workload.marks == {"certificate.certrenewal.dev/web-tls": "abcd"}
    assert workload.mark_of("web-tls") == "abcd"
    assert workload.mark_of("other") is None


# -- is the rollout complete ---------------------------------------------------------------------------------------

DEPLOYED = {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
STATEFUL = {**DEPLOYED, "currentRevision": "web-2", "updateRevision": "web-2"}
DAEMONS = {"observedGeneration": 3, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2}


def is_complete(kind: str, status: dict[str, Any], **spec: Any) -> bool:
    body = a_body(status=status)
    body["spec"].update(spec)
    return parse_workload(kind, body).complete


@pytest.mark.parametrize(
    ("change", "complete"),
    [
        pytest.param({}, True, id="all new and available"),
        pytest.param({"observedGeneration": 4}, True, id="a later generation seen"),
        pytest.param({"observedGeneration": 2}, False, id="the change not seen yet"),
        pytest.param({"observedGeneration": 0}, False, id="never seen"),
        pytest.param({"updatedReplicas": 1}, False, id="one still old"),
        pytest.param({"replicas": 3}, False, id="an old one not gone yet"),
        pytest.param({"availableReplicas": 1}, False, id="one not available"),
        pytest.param({"availableReplicas": 3}, True, id="more available than wanted"),
    ],
)
@pytest.mark.parametrize(("kind", "done"), [("Deployment", DEPLOYED), ("StatefulSet", STATEFUL)])
def test_when_the_rollout_of_replicas_is_complete(
    kind: str, done: dict[str, Any], change: dict[str, int], complete: bool
) -> None:
    assert is_complete(kind, {**done, **change}) is complete


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_a_workload_without_status_is_not_complete(kind: str) -> None:
    assert not is_complete(kind, {})
    assert not parse_workload(kind, a_body(status=None)).complete


def test_a_statefulset_is_complete_once_its_revision_has_moved() -> None:
    assert not is_complete("StatefulSet", {**STATEFUL, "currentRevision": "web-1"})


def test_a_statefulset_on_delete_is_complete_once_all_its_pods_are_new() -> None:
    """Its controller never moves currentRevision with OnDelete, so that waiting for it would be for ever."""
    moved = {**STATEFUL, "currentRevision": "web-1"}
    strategy = {"updateStrategy": {"type": "OnDelete"}}

    assert is_complete("StatefulSet", moved, **strategy)
    assert not is_complete("StatefulSet", {**moved, "updatedReplicas": 1}, **strategy)


@pytest.mark.parametrize(
    ("change", "complete"),
    [
        pytest.param({}, True, id="all new and available"),
        pytest.param({"observedGeneration": 2}, False, id="the change not seen yet"),
        pytest.param({"updatedNumberScheduled": 1}, False, id="one still old"),
        pytest.param({"numberAvailable": 1}, False, id="one not available"),
        pytest.param({"desiredNumberScheduled": 3}, False, id="a new node waits for its pod"),
        pytest.param(
            {"desiredNumberScheduled": 0, "updatedNumberScheduled": 0, "numberAvailable": 0},
            True,
            id="no node wants it",
        ),
    ],
)
def test_when_the_rollout_of_a_daemonset_is_complete(change: dict[str, int], complete: bool) -> None:
    assert is_complete("DaemonSet", {**DAEMONS, **change}) is complete


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_workload_scaled_to_nothing_is_complete(kind: str) -> None:
    status = {"observedGeneration": 3, "currentRevision": "web-1", "updateRevision": "web-2"}

    assert is_complete(kind, status, replicas=0)
    assert not is_complete(kind, {**status, "replicas": 1}, replicas=0)


def test_replicas_left_out_are_one() -> None:
    body = a_body(status={**DEPLOYED, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1})
    del body["spec"]["replicas"]

    assert parse_workload("Deployment", body).complete


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        pytest.param("Deployment", {"paused": True}, "resume it", id="paused"),
        pytest.param(
            "StatefulSet", {"updateStrategy": {"type": "OnDelete"}}, "delete its pods", id="StatefulSet OnDelete"
        ),
        pytest.param("DaemonSet", {"updateStrategy": {"type": "OnDelete"}}, "delete its pods", id="DaemonSet OnDelete"),
        pytest.param("Deployment", {"paused": False}, None, id="not paused"),
        pytest.param("StatefulSet", {"updateStrategy": {"type": "RollingUpdate"}}, None, id="rolling"),
        pytest.param("Deployment", {}, None, id="nothing said"),
    ],
)
def test_a_workload_tells_whom_it_waits_for(kind: str, spec: dict[str, Any], words: str | None) -> None:
    body = a_body()
    body["spec"].update(spec)

    waits = parse_workload(kind, body).waits

    assert waits is None if words is None else words in (waits or "")


@pytest.mark.parametrize(
    ("condition", "failed"),
    [
        pytest.param(
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"},
            "timed out",
            id="deadline",
        ),
        pytest.param(
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
            "it does not progress",
            id="deadline without a message",
        ),
        pytest.param({"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}, None, id="done"),
        pytest.param({"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}, None, id="progresses"),
        pytest.param(
            {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable"}, None, id="not yet"
        ),
    ],
)
def test_a_rollout_fails_where_it_does_not_progress(condition: dict[str, str], failed: str | None) -> None:
    assert parse_workload("Deployment", a_body(status={"conditions": [condition]})).failed == failed


# -- marks ---------------------------------------------------------------------------------------------------------

SECRET_NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", fullmatch=True)
QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


@given(SECRET_NAMES)
def test_every_secret_name_makes_a_valid_annotation(secret: str) -> None:
    prefix, _, name = mark_key(secret).partition("/")

    assert prefix == "certificate.certrenewal.dev"
    assert QUALIFIED.fullmatch(name)


def test_a_short_name_is_readable_in_the_annotation() -> None:
    assert mark_key("web-tls") == "certificate.certrenewal.dev/web-tls"
    assert mark_key("a" * 63) == f"certificate.certrenewal.dev/{'a' * 63}"


def test_long_names_that_begin_alike_have_marks_of_their_own() -> None:
    one, two = mark_key("a" * 100 + "1"), mark_key("a" * 100 + "2")

    assert one != two
    assert one.startswith("certificate.certrenewal.dev/" + "a" * 52)


def test_a_long_name_is_not_cut_at_a_sign() -> None:
    assert mark_key("a" * 51 + ".-" + "b" * 20).startswith(f"certificate.certrenewal.dev/{'a' * 51}-")
    assert ".-" not in mark_key("a" * 51 + ".-" + "b" * 20)


def test_a_long_name_has_the_same_mark_after_an_upgrade() -> None:
    assert mark_key("a" * 64) == f"certificate.certrenewal.dev/{'a' * 52}-ffe054fe7a"


def test_a_mark_is_the_begin_of_the_fingerprint() -> None:
    assert mark("0123456789abcdef" * 4) == "0123456789abcdef"


def test_a_workload_finds_its_mark_for_a_long_name() -> None:
    workload = a_workload(marks={mark_key("b" * 80): "abcd"})

    assert workload.mark_of("b" * 80) == "abcd"


# -- what its annotations ask for ----------------------------------------------------------------------------------


def with_annotations(**words: str) -> Workload:
    body = a_body()
    body["metadata"]["annotations"] = {f"certrenewal.dev/{key.replace('_', '-')}": text for key, text in words.items()}
    return parse_workload("Deployment", body)


@pytest.mark.parametrize(
    ("words", "turn"),
    [
        pytest.param({}, Turn(follows=True, order=0), id="nothing said"),
        pytest.param({"restart_order": "10"}, Turn(follows=True, order=10), id="a wave"),
        pytest.param({"restart_order": "-1"}, Turn(follows=True, order=-1), id="before those that say nothing"),
        pytest.param({"restart_order": "+2"}, Turn(follows=True, order=2), id="with a sign"),
        pytest.param({"restart_canary": "true"}, Turn(follows=False, order=0), id="a canary"),
        pytest.param({"restart_canary": "false"}, Turn(follows=True, order=0), id="no canary"),
        pytest.param({"restart_canary": "true", "restart_order": "5"}, Turn(follows=False, order=5), id="both"),
    ],
)
def test_a_workload_says_when_its_turn_comes(words: dict[str, str], turn: Turn) -> None:
    found = with_annotations(**words)

    assert (found.turn, found.fault) == (turn, None)


def test_the_canary_comes_before_every_wave_and_lower_waves_before_higher() -> None:
    turns = [Turn(follows=True, order=10), Turn(follows=True, order=-1), Turn(follows=False, order=99)]

    assert [str(turn) for turn in sorted(turns)] == ["the canary", "wave -1", "wave 10"]


def test_a_workload_says_when_it_may_be_restarted() -> None:
    assert with_annotations(restart_window="0 2 * * * for 4h").window == parse_window("0 2 * * * for 4h")
    assert with_annotations().window is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param({"restart": "never"}, "certrenewal.dev/restart: 'never' cannot be read", id="capitals"),
        pytest.param({"restart_order": "first"}, "write a whole number such as 10 or -1", id="order in words"),
        pytest.param({"restart_order": "1.5"}, "write a whole number such as 10 or -1", id="half a wave"),
        pytest.param({"restart_order": "१"}, "write a whole number such as 10 or -1", id="other digits"),
        pytest.param({"restart_order": "1" * 5000}, "write a whole number such as 10 or -1", id="a long number"),
        pytest.param({"restart_canary": "yes"}, 'write "true" or "false"', id="yes"),
        pytest.param({"restart_window": "nightly"}, "0 2 * * * for 4h in Europe/Berlin", id="window in words"),
        pytest.param({"restart_window": ""}, "0 2 * * * for 4h in Europe/Berlin", id="empty window"),
        pytest.param({"restart_ordr": "1"}, "certrenewal.dev/restart-ordr: there is no such annotation", id="unknown"),
        pytest.param({"renew": "true"}, "certrenewal.dev/renew: there is no such annotation", id="of a Secret"),
    ],
)
def test_an_annotation_that_cannot_be_read_is_not_guessed(words: dict[str, str], said: str) -> None:
    found = with_annotations(**words)

    assert said in (found.fault or "")
    assert (found.turn, found.window, found.opted_out) == (Turn(follows=True, order=0), None, False)


def test_an_unknown_annotation_is_told_with_those_that_there_are() -> None:
    fault = with_annotations(restart_ordr="1").fault or ""

    assert all(name in fault for name in ("restart", "restart-canary", "restart-order", "restart-window"))


@pytest.mark.parametrize(
    ("partition", "kept"), [pytest.param(1, "1", id="one"), pytest.param(9, "2", id="more than there are")]
)
def test_a_partition_keeps_pods_as_they_are_and_says_so(partition: int, kept: str) -> None:
    body = a_body(status={**STATEFUL, "updatedReplicas": 0, "currentRevision": "web-1"})
    body["spec"]["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}

    found = parse_workload("StatefulSet", body)

    assert not found.complete
    assert found.waits is not None
    assert f"its partition {partition} keeps {kept} pods as they are: lower it" in found.waits


def test_a_partition_of_nought_keeps_nothing() -> None:
    body = a_body(status=STATEFUL)
    body["spec"]["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}

    assert parse_workload("StatefulSet", body).waits is None


def test_a_deadline_that_an_earlier_generation_missed_says_nothing_of_a_new_restart() -> None:
    """The answer to our patch has the old condition still: it would be told as a failure that is none yet."""
    condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "stuck"}
    status = {"observedGeneration": 2, "conditions": [condition]}

    assert parse_workload("Deployment", a_body(status=status)).failed is None
