"""Guards: a signal or command is read as it was meant, and what only a restart renews is known from the pod template."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.domain import annotation
from certrenewal.domain.reload import Consumption, Mount, Reload, parse_consumption, parse_reload, selector_text
from certrenewal.domain.rollout import State, mark_key, parse_workload
from certrenewal.domain.spec import Restart
from certrenewal.domain.standing import NO_SIGNALS, Current, stand
from certrenewal.domain.status import Ran, Recorded, Standing
from tests.unit.builders import NOON, WEB, a_workload

KEYS = frozenset({"tls.crt", "tls.key", "ca.crt"})
HUP = ("kill", "-s", "HUP", "1")


def a_pod(*containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A pod with Secret web-tls as volume certs; each container mounts it unless it says otherwise."""
    whole = [{"name": f"c{number}", "volumeMounts": [CERTS], **part} for number, part in enumerate(containers)]
    return {"volumes": [{"name": "certs", "secret": {"secretName": "web-tls"}}], "containers": whole, **more}


CERTS = {"name": "certs", "mountPath": "/etc/certs"}
ENV = {"env": [{"name": "CRT", "valueFrom": {"secretKeyRef": {"name": "web-tls", "key": "tls.crt"}}}]}


def a_body(pod: dict[str, Any], **annotations: str) -> dict[str, Any]:
    own = {f"certrenewal.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {
        "metadata": {"namespace": "shop", "name": "web", "uid": "w1", "generation": 1, "annotations": own},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {}, "spec": pod}},
        "status": {},
    }


# -- annotations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "reload"),
    [
        pytest.param({}, Reload(command=HUP), id="nothing more"),
        pytest.param({annotation.RELOAD_SIGNAL: "USR1"}, Reload(command=("kill", "-s", "USR1", "1")), id="signal"),
        pytest.param({annotation.RELOAD_SIGNAL: "SIGHUP"}, Reload(command=HUP), id="signal with SIG"),
        pytest.param(
            {annotation.RELOAD_SIGNAL: "RTMIN+3"}, Reload(command=("kill", "-s", "RTMIN+3", "1")), id="real time"
        ),
        pytest.param({annotation.RELOAD_CONTAINER: "c1"}, Reload(command=HUP, container="c1"), id="container"),
        pytest.param(
            {annotation.RELOAD_COMMAND: "nginx -s reload"}, Reload(command=("nginx", "-s", "reload")), id="plain"
        ),
        pytest.param(
            {annotation.RELOAD_COMMAND: "sh -c 'a \"b\" && c'"}, Reload(command=("sh", "-c", 'a "b" && c')), id="quoted"
        ),
        pytest.param({annotation.RELOAD_COMMAND: '["a b", "", "c"]'}, Reload(command=("a b", "", "c")), id="JSON"),
        pytest.param(
            {annotation.RELOAD_COMMAND: "reload", annotation.RELOAD_SIGNAL: "USR2"},
            Reload(command=("reload",)),
            id="a command instead of the signal",
        ),
    ],
)
def test_how_a_workload_is_told(own: dict[str, str], reload: Reload) -> None:
    assert parse_reload(own, a_pod({}, {})) == reload


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *((annotation.RELOAD_SIGNAL, text) for text in ("", "hup", "SIG", "-9", "HUP 1", "TOOLONGASIGNAL", "HUP;id")),
        *((annotation.RELOAD_CONTAINER, text) for text in ("", "c2", "C0", "c0 ", "../c0")),
        *(
            (annotation.RELOAD_COMMAND, text)
            for text in ("", "  ", "sh -c 'a", "[]", '[""]', "[1]", '["a"', '["a", 1]')
        ),
        (annotation.RELOAD_COMMAND, "x" * 3000),
        (annotation.RELOAD_COMMAND, "[" * 1500),
    ],
)
def test_what_cannot_be_read_is_named_with_what_would_be_right(key: str, text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read: write ") as refusal:
        parse_reload({key: text}, a_pod({}, {}))

    assert key in str(refusal.value)


@given(st.text(max_size=60))
def test_any_text_is_a_command_or_refused(text: str) -> None:
    try:
        reload = parse_reload({annotation.RELOAD_COMMAND: text}, a_pod({}))
    except ValueError:
        return
    assert reload.command[0]
    assert all(isinstance(word, str) for word in reload.command)


@pytest.mark.parametrize("field", ["shareProcessNamespace", "hostPID"])
def test_no_signal_goes_to_a_process_that_is_not_the_containers(field: str) -> None:
    pod = a_pod({}, **{field: True})

    with pytest.raises(ValueError, match=field):
        parse_reload({}, pod)
    assert parse_reload({annotation.RELOAD_COMMAND: "reload"}, pod).command == ("reload",)


def test_a_sidecar_can_be_told() -> None:
    pod = a_pod({}, initContainers=[{"name": "proxy", "restartPolicy": "Always"}, {"name": "setup"}])

    assert parse_reload({annotation.RELOAD_CONTAINER: "proxy"}, pod).container == "proxy"
    with pytest.raises(ValueError, match="write one of c0, proxy"):
        parse_reload({annotation.RELOAD_CONTAINER: "setup"}, pod)


# -- the pod template --------------------------------------------------------------------------------------------------


def needs_restart(pod: dict[str, Any], keys: frozenset[str] = KEYS) -> str | None:
    return parse_consumption({}, pod).needs_restart("web-tls", keys)


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        pytest.param(a_pod({}), None, id="a volume"),
        pytest.param(a_pod(ENV), "container c0 has web-tls in its environment", id="a variable beside a volume"),
        pytest.param(
            a_pod({"envFrom": [{"secretRef": {"name": "web-tls"}}]}), "container c0 has web-tls", id="all variables"
        ),
        pytest.param(
            a_pod({}, {"volumeMounts": [{**CERTS, "subPath": "tls.crt"}]}), "container c1 mounts web-tls by subPath", id="subPath"
        ),
        pytest.param(
            a_pod({"volumeMounts": [{**CERTS, "subPathExpr": "$(NAME)"}]}), "by subPath", id="subPath with a variable"
        ),
        pytest.param(
            a_pod({"volumeMounts": []}, initContainers=[{"name": "setup", "volumeMounts": [CERTS]}]),
            "only init container setup mounts web-tls",
            id="an init container alone",
        ),
        pytest.param(a_pod({}, initContainers=[{"name": "setup", "volumeMounts": [CERTS]}]), None, id="an init container too"),
        pytest.param(
            a_pod({}, initContainers=[{"name": "setup", **ENV}]), "container setup has", id="a variable of an init container"
        ),
        pytest.param(
            a_pod({"volumeMounts": []}, initContainers=[{"name": "proxy", "restartPolicy": "Always", "volumeMounts": [CERTS]}]),
            None,
            id="a sidecar",
        ),
        pytest.param(
            a_pod({"env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "web-tls", "key": "password"}}}]}),
            None,
            id="a variable that no renewal changes",
        ),
        pytest.param(a_pod({"volumeMounts": [CERTS, {"name": "certs", "mountPath": "/p", "subPath": "password"}]}), None, id="a file that no renewal changes"),
        pytest.param(
            {
                "volumes": [{"name": "v", "secret": {"secretName": "web-tls", "items": [{"key": "tls.crt", "path": "c.pem"}]}}],
                "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/c", "subPath": "c.pem"}]}],
            },
            "by subPath",
            id="subPath of a renamed file",
        ),
        pytest.param(
            {
                "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "web-tls"}}]}}],
                "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/c"}]}],
            },
            None,
            id="a projected volume",
        ),
        pytest.param({"containers": None, "volumes": None, "initContainers": None}, None, id="nulls"),
        pytest.param({}, None, id="nothing"),
    ],
)  # fmt: skip
def test_what_only_a_restart_renews(pod: dict[str, Any], words: str | None) -> None:
    found = needs_restart(pod)

    assert found is None if words is None else words in (found or "")


def test_another_secret_in_the_environment_is_no_hindrance() -> None:
    assert parse_consumption({}, a_pod(ENV)).needs_restart("db-tls", KEYS) is None


def test_the_users_own_keys_count() -> None:
    assert needs_restart(a_pod(ENV), frozenset({"server.pem", "server.key", "ca.pem"})) is None


@pytest.mark.parametrize(
    ("items", "file"),
    [
        pytest.param((), "/etc/certs/tls.crt", id="its own name"),
        pytest.param((("tls.crt", "web/chain.pem"),), "/etc/certs/web/chain.pem", id="another name"),
        pytest.param((("tls.key", "key.pem"),), None, id="not mounted"),
    ],
)
def test_where_a_container_finds_the_certificate(items: tuple[tuple[str, str], ...], file: str | None) -> None:
    mount = Mount(secret="web-tls", container="c0", path="/etc/certs", items=items)

    assert mount.file("tls.crt") == file


@pytest.mark.parametrize(
    ("pod", "container", "chosen"),
    [
        pytest.param(a_pod({}, {"volumeMounts": []}, {}), None, ("c0", "c2"), id="all that mount it"),
        pytest.param(a_pod({"volumeMounts": []}, {"volumeMounts": []}), None, ("c0",), id="nobody mounts it"),
        pytest.param(a_pod({}, {"volumeMounts": []}), "c1", ("c1",), id="the one that is named"),
        pytest.param({}, None, (), id="no container"),
    ],
)
def test_which_containers_are_told(pod: dict[str, Any], container: str | None, chosen: tuple[str, ...]) -> None:
    consumption = parse_consumption({}, pod)

    assert consumption.chosen(Reload(command=HUP, container=container), {"web-tls"}) == chosen


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({}, ""),
        ({"matchLabels": {"app": "web", "tier": "front"}}, "app=web,tier=front"),
        (
            {
                "matchLabels": {"app": "web"},
                "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["1", "2"]},
                    {"key": "b", "operator": "NotIn", "values": ["3"]},
                    {"key": "c", "operator": "Exists"},
                    {"key": "d", "operator": "DoesNotExist"},
                ],
            },
            "app=web,a in (1,2),b notin (3),c,!d",
        ),
    ],
)
def test_a_selector_becomes_a_query(selector: dict[str, Any], text: str) -> None:
    assert selector_text(selector) == text


# -- how it stands -----------------------------------------------------------------------------------------------------

NEW = "b" * 16
FRESH = Recorded({"certificate": {"fingerprint": "a" * 64}})


def stands(body: dict[str, Any], **changes: Any) -> Standing:
    current = Current(secret="web-tls", runs=Ran(NEW), **changes)
    (standing,) = stand([parse_workload("Deployment", body)], current, FRESH, NOON)
    return standing


def test_a_signalled_workload_is_owed_a_signal_until_it_carries_the_mark_itself() -> None:
    owed = a_body(a_pod({}), restart="Signal")
    told = a_body(a_pod({}), restart="Signal")
    told["metadata"]["annotations"][mark_key("web-tls")] = NEW
    restarted = a_body(a_pod({}), restart="Signal")
    restarted["spec"]["template"]["metadata"] = {"annotations": {mark_key("web-tls"): NEW}}

    assert stands(owed).state is State.PENDING
    assert stands(told).runs.fingerprint == NEW
    assert stands(restarted).state is State.PENDING


@pytest.mark.parametrize(
    ("body", "changes", "words"),
    [
        pytest.param(a_body(a_pod(ENV), restart="Signal"), {}, "which no signal renews", id="environment"),
        pytest.param(a_body(a_pod({}), restart="Signal"), {"may_signal": False}, NO_SIGNALS, id="no right"),
        pytest.param(a_body(a_pod({}), restart="Signal", reload_signal="?"), {}, "reload-signal", id="unreadable"),
        pytest.param(a_body(a_pod({}), restart="Sometimes"), {}, '"Auto", "Never" or "Signal"', id="another word"),
    ],
)
def test_who_cannot_be_signalled_fails_with_what_to_do(
    body: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    standing = stands(body, **changes)

    assert standing.state is State.FAILED
    assert words in standing.message


def test_reload_annotations_of_those_that_are_restarted_count_for_nothing() -> None:
    assert stands(a_body(a_pod({}, hostPID=True), reload_signal="?")).state is State.PENDING


@pytest.mark.parametrize(
    ("body", "restart", "words"),
    [
        pytest.param(a_body(a_pod(ENV), restart="Never"), Restart(), "which only a restart renews", id="environment"),
        pytest.param(a_body(a_pod({}), restart="Never"), Restart(), "", id="volume"),
        pytest.param(a_body(a_pod(ENV)), Restart("Never"), "", id="the Secret's wish"),
    ],
)
def test_who_is_never_restarted_hears_what_that_means(body: dict[str, Any], restart: Restart, words: str) -> None:
    standing = stands(body, restart=restart)

    assert standing.state is State.SKIPPED
    assert standing.message == "" if not words else words in standing.message


def test_what_a_command_printed_is_told_in_the_workloads_message_alone() -> None:
    standing = Standing(ref=WEB, state=State.FAILED, runs=Ran(""), message="exit code 3\nits own words")

    assert standing.summary == "exit code 3"


def test_a_workload_without_a_word_reads_nothing_at_start() -> None:
    assert a_workload().consumption == Consumption()
