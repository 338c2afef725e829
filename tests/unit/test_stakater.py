"""Guards: with the option, just those workloads are restarted that Reloader would restart."""

from __future__ import annotations

from typing import Any

import pytest

from certrenewal.domain import annotation
from certrenewal.domain.rollout import State, parse_workload
from certrenewal.domain.stakater import AUTO, EXCLUDED, IGNORE, NAMED, SEARCH, SECRET_AUTO, read_reloader
from certrenewal.domain.standing import Current, stand
from certrenewal.domain.status import Ran, Recorded
from tests.unit.builders import NOON

NONE = "has no reloader.stakater.com annotation"


def objection(own: dict[str, str], pods: dict[str, str] | None = None) -> str | None:
    template: dict[str, Any] = {"metadata": {"annotations": pods}} if pods is not None else {}
    return read_reloader(own, template).objection_to("web-tls")


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({AUTO: "true"}, None),
        ({SECRET_AUTO: "true"}, None),
        ({SEARCH: "true"}, None),
        ({NAMED: "web-tls"}, None),
        ({NAMED: "db-tls, web-tls"}, None),
        ({AUTO: "false", NAMED: "web-tls"}, None),
        ({AUTO: "false", SECRET_AUTO: "true"}, None),
        ({}, NONE),
        ({"configmap.reloader.stakater.com/auto": "true"}, NONE),
        ({AUTO: "false"}, f"{AUTO} is not true"),
        ({AUTO: "yes"}, f"{AUTO} is not true"),
        ({SECRET_AUTO: "false"}, f"{SECRET_AUTO} is not true"),
        ({NAMED: "db-tls"}, f"{NAMED} does not name the Secret"),
        ({NAMED: "web-.*"}, f"{NAMED} does not name the Secret"),
        ({NAMED: ""}, f"{NAMED} does not name the Secret"),
        ({AUTO: "true", EXCLUDED: "db-tls,web-tls"}, f"the Secret is in {EXCLUDED}"),
        ({NAMED: "web-tls", EXCLUDED: "web-tls"}, f"the Secret is in {EXCLUDED}"),
        ({AUTO: "true", EXCLUDED: "db-tls"}, None),
        ({AUTO: "true", IGNORE: "true"}, f"{IGNORE} is true"),
        ({AUTO: "true", IGNORE: "false"}, None),
        ({annotation.RESTART: "Auto"}, None),
        ({annotation.RESTART: "Auto", AUTO: "false", IGNORE: "true"}, None),
        ({annotation.RESTART_ORDER: "1"}, NONE),
    ],
    ids=str,
)
def test_the_annotations_of_a_workload_decide(own: dict[str, str], words: str | None) -> None:
    assert objection(own) == words


@pytest.mark.parametrize(
    ("own", "pods", "words"),
    [
        ({}, {AUTO: "true"}, None),
        ({AUTO: "false"}, {AUTO: "true"}, f"{AUTO} is not true"),
        ({EXCLUDED: "web-tls"}, {AUTO: "true"}, f"the Secret is in {EXCLUDED}"),
        ({}, {AUTO: "true", EXCLUDED: "web-tls"}, f"the Secret is in {EXCLUDED}"),
        ({"a": "b"}, {"kubectl.kubernetes.io/restartedAt": "now"}, NONE),
    ],
)
def test_those_of_the_pods_count_where_it_has_none(
    own: dict[str, str], pods: dict[str, str], words: str | None
) -> None:
    assert objection(own, pods) == words


@pytest.mark.parametrize(
    ("as_reloader", "own", "state"),
    [
        (True, {}, State.SKIPPED),
        (True, {AUTO: "true"}, State.PENDING),
        (True, {annotation.RESTART: "Auto"}, State.PENDING),
        (True, {annotation.RESTART: "Never", AUTO: "true"}, State.SKIPPED),
        (False, {}, State.PENDING),
        (False, {AUTO: "false", IGNORE: "true"}, State.PENDING),
    ],
)
def test_the_option_decides_whether_they_are_read(as_reloader: bool, own: dict[str, str], state: State) -> None:
    pod = {"containers": [], "imagePullSecrets": [{"name": "web-tls"}]}
    metadata = {"namespace": "shop", "name": "web", "uid": "w1", "annotations": own}
    workload = parse_workload(
        "Deployment", {"metadata": metadata, "spec": {"template": {"spec": pod}}}, as_reloader=as_reloader
    )
    before = {"workloads": [{"kind": "Deployment", "name": "web", "state": "Healthy", "fingerprint": "old"}]}

    (standing,) = stand([workload], Current(secret="web-tls", runs=Ran("new")), Recorded(before), NOON)

    assert standing.state is state
    assert standing.message == (NONE if as_reloader and not own else "")
