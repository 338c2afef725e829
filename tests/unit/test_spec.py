"""Guards: annotations say the same as a spec, and what cannot be read is named with its remedy, never guessed (§2)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.domain import annotation
from certrenewal.domain.keys import KeyAlgorithm, KeyRotation
from certrenewal.domain.names import Name
from certrenewal.domain.spec import (
    DataKeys,
    InvalidSpec,
    Percent,
    Restart,
    Spec,
    TokenWish,
    Verify,
    Wish,
    WorkloadRef,
    is_opted_in,
    parse_spec,
    read_wish,
)
from tests.unit.builders import names

DB = WorkloadRef("StatefulSet", "db")
WEB = WorkloadRef("Deployment", "web")


def annotated(**values: str) -> dict[str, str]:
    """Annotations of a Secret that opted in: ``renew_before="4h"`` is ``certrenewal.dev/renew-before``."""
    wanted = {"renew": "true", **values}
    return {annotation.PREFIX + key.replace("_", "-"): value for key, value in wanted.items()}


def spec_of(**values: str) -> Spec:
    """What these annotations ask for; they have to be right."""
    wish = read_wish("web-tls", annotated(**values))
    assert wish.problem is None, wish.problem
    return parse_spec("web-tls", wish.spec)


def test_a_secret_that_only_opts_in_gets_all_the_defaults() -> None:
    spec = spec_of()

    assert spec == Spec(
        secret_name="web-tls",
        authority="default",
        names=(),
        duration=None,
        renew_before=None,
        key_algorithm=None,
        key_rotation=KeyRotation.NEVER,
        data_keys=DataKeys(crt="tls.crt", key="tls.key", ca="ca.crt"),
        restart=Restart("Auto"),
    )


@pytest.mark.parametrize(
    ("key", "value", "field", "meaning"),
    [
        pytest.param("authority", "internal", "authority", "internal", id="authority"),
        pytest.param("names", "web.shop", "names", names("web.shop"), id="one name"),
        pytest.param("names", " b.shop , a.shop,10.1.2.3", "names", names("b.shop", "a.shop", "10.1.2.3"), id="names"),
        pytest.param("duration", "24h", "duration", timedelta(hours=24), id="duration"),
        pytest.param("renew-before", "4h", "renew_before", timedelta(hours=4), id="renew-before as a duration"),
        pytest.param("renew-before", "33%", "renew_before", Percent(33), id="renew-before as a share"),
        pytest.param("renew-before", "1%", "renew_before", Percent(1), id="the least share"),
        pytest.param("renew-before", "99%", "renew_before", Percent(99), id="the largest share"),
        *(pytest.param("key", word, "key_algorithm", word, id=f"key {word}") for word in KeyAlgorithm),
        *(pytest.param("key-rotation", word, "key_rotation", word, id=f"key-rotation {word}") for word in KeyRotation),
        pytest.param(
            "data-keys", "crt=a.crt,key=b,ca=c", "data_keys", DataKeys(crt="a.crt", key="b", ca="c"), id="data-keys"
        ),
        pytest.param("data-keys", "key=k.pem", "data_keys", DataKeys(key="k.pem"), id="some data-keys"),
        pytest.param("data-keys", " crt = a , ca = b ", "data_keys", DataKeys(crt="a", ca="b"), id="blanks"),
        pytest.param("restart", "Auto", "restart", Restart("Auto"), id="restart Auto"),
        pytest.param("restart", "Never", "restart", Restart("Never"), id="restart Never"),
        pytest.param(
            "restart",
            "Rollout/web,StatefulSet.apps.kruise.io/db",
            "restart",
            Restart(
                "Listed",
                frozenset({WorkloadRef("Rollout", "web"), WorkloadRef("StatefulSet.apps.kruise.io", "db")}),
            ),
            id="restart list of other kinds",
        ),
        pytest.param(
            "restart",
            "Deployment/web, StatefulSet/db",
            "restart",
            Restart("Listed", frozenset({WEB, DB})),
            id="restart list",
        ),
        pytest.param("verify", "8443", "verify", Verify(port=8443), id="verify a port"),
        pytest.param(
            "verify", "web.shop.svc:443", "verify", Verify(port=443, host="web.shop.svc"), id="verify a Service"
        ),
    ],
)
def test_each_annotation_sets_its_field(key: str, value: str, field: str, meaning: object) -> None:
    spec = spec_of(**{key: value})

    assert getattr(spec, field) == meaning


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        pytest.param("renew", "True", 'write "true" or "false"', id="renew in capitals"),
        pytest.param("renew", "", 'write "true" or "false"', id="renew empty"),
        pytest.param("authority", "Internal CA", "write the name of a Kubernetes object", id="authority"),
        pytest.param("authority", "", "write the name of a Kubernetes object", id="empty authority"),
        pytest.param("names", "a..b", "has a label ''", id="name with an empty label"),
        pytest.param("names", "web.shop.svc.", "leave it out", id="trailing dot"),
        pytest.param("names", "web.shop,,api.shop", "without an empty part", id="double comma"),
        pytest.param("names", "web.shop,", "without an empty part", id="comma at the end"),
        pytest.param("names", "", "without an empty part", id="no names"),
        pytest.param("names", "web.shop api.shop", "holds a blank", id="blank in place of a comma"),
        pytest.param("duration", "1d", "write it like 24h", id="days"),
        pytest.param("duration", "0s", "a duration is positive", id="no duration"),
        pytest.param("duration", "-5m", "write it like 24h", id="negative duration"),
        pytest.param("duration", "50%", "write it like 24h", id="share as a duration"),
        pytest.param("renew-before", "soon", "write it like 24h", id="renew-before as a word"),
        pytest.param("renew-before", "0%", "from 1% to 99%", id="no share"),
        pytest.param("renew-before", "100%", "from 1% to 99%", id="the whole life"),
        pytest.param("renew-before", "33.3%", "a whole percentage", id="part of a percent"),
        pytest.param("renew-before", "-5%", "from 1% to 99%", id="negative share"),
        pytest.param("renew-before", "%", "from 1% to 99%", id="only a sign"),
        pytest.param("key", "ec-p256", "write one of EC-P256, EC-P384, RSA-2048", id="key in small letters"),
        pytest.param("key", "RSA-1024", "Ed25519", id="weak key"),
        pytest.param("key-rotation", "Sometimes", "write one of Never, Always", id="key-rotation"),
        pytest.param("data-keys", "tls.crt", "write crt=NAME,key=NAME,ca=NAME", id="data-keys without a sign"),
        pytest.param("data-keys", "cert=a", "name crt, key or ca", id="unknown data-key"),
        pytest.param("data-keys", "crt=a,crt=b", "once", id="the same data-key twice"),
        pytest.param("data-keys", "crt=a,key=a", "three different keys", id="the same place twice"),
        pytest.param("data-keys", "crt=tls.key", "three different keys", id="the place of a default"),
        pytest.param("data-keys", "crt=", "keys of a Secret hold", id="data-key without a name"),
        pytest.param("data-keys", "crt=a/b", "keys of a Secret hold", id="data-key that is a path"),
        pytest.param("data-keys", "crt=..", "keys of a Secret hold", id="data-key that the API server refuses"),
        pytest.param("data-keys", "crt=.", "keys of a Secret hold", id="data-key of one dot"),
        pytest.param("restart", "auto", "write Auto, Never, or a list", id="restart in small letters"),
        pytest.param("restart", "web", "Deployment/web,StatefulSet/db", id="workload without a kind"),
        pytest.param("restart", "Job/once", "Deployment/web,StatefulSet/db", id="kind that is not restarted"),
        pytest.param("restart", "Rollout/web,Pod/one", "Deployment/web,StatefulSet/db", id="Pod in a list"),
        pytest.param("restart", "deployment/web", "Deployment/web,StatefulSet/db", id="kind in small letters"),
        pytest.param("restart", "Rollout./web", "Deployment/web,StatefulSet/db", id="kind with half a group"),
        pytest.param("restart", "Deployment/web,Never", "Auto, Never, or a list", id="a word within a list"),
        pytest.param("restart", "Deployment/Web", "Auto, Never, or a list", id="no object's name"),
        pytest.param("restart", "Deployment/web\xa0", "Auto, Never, or a list", id="a blank that the schema refuses"),
        pytest.param("restart", "Deployment/web,", "without an empty part", id="list with an empty part"),
        pytest.param("verify", "", "a port from 1 to 65535", id="verify nothing"),
        pytest.param("verify", "0", "a port from 1 to 65535", id="no port"),
        pytest.param("verify", "65536", "a port from 1 to 65535", id="a port beyond ports"),
        pytest.param("verify", "web", "a Service and a port", id="verify without a port"),
        pytest.param("verify", ":443", "a Service and a port", id="verify an empty host"),
        pytest.param("verify", "https://web:443", "a Service and a port", id="verify a URL"),
        pytest.param("verify", "[::1]:443", "a Service and a port", id="verify an address"),
        pytest.param("formats", "pkcs12", "annotation pkcs12-password-secret", id="a key store without a password"),
        pytest.param("formats", "combined,jks", "write one of combined, der", id="unknown format"),
        pytest.param("formats", "", "without an empty part", id="no format"),
        pytest.param("pkcs12-password-secret", "My Secret", "write the name", id="no name of a Secret"),
        pytest.param("pkcs12-profile", "Legacy", "", id="profile"),
        pytest.param("revoke", "Always", "write one of OnRenew, OnDelete", id="revoke"),
        pytest.param("renew_befor", "4h", "there is no such annotation", id="misspelt annotation"),
    ],
)
def test_what_cannot_be_read_is_named_with_annotation_value_and_remedy(key: str, value: str, remedy: str) -> None:
    problem = read_wish("web-tls", annotated(**{key: value})).problem

    assert problem is not None
    text = str(problem)
    assert text.startswith(f"annotation certrenewal.dev/{key.replace('_', '-')}: {value!r} cannot be read: ")
    assert remedy in text.partition(" cannot be read: ")[2]


def test_a_misspelt_annotation_is_told_which_ones_there_are() -> None:
    problem = read_wish("web-tls", annotated(name="web.shop")).problem

    assert all(key.removeprefix(annotation.PREFIX) in str(problem) for key in annotation.ON_SECRETS)


def test_what_can_be_read_is_kept_beside_what_cannot() -> None:
    wish = read_wish("web-tls", annotated(names="web.shop", duration="1d", key="EC-P384"))

    assert wish.spec == {"secretName": "web-tls", "names": ["web.shop"], "key": {"algorithm": "EC-P384"}}
    assert "certrenewal.dev/duration" in str(wish.problem)


def test_of_several_annotations_that_cannot_be_read_the_first_is_told() -> None:
    wish = read_wish("web-tls", annotated(restart="all", duration="1d", names="a..b"))

    assert "certrenewal.dev/names" in str(wish.problem)


def test_key_and_rotation_share_one_field_of_the_spec() -> None:
    wish = read_wish("web-tls", annotated(key="Ed25519", key_rotation="Always"))

    assert wish.spec["key"] == {"algorithm": "Ed25519", "rotation": "Always"}


def test_a_value_that_is_endless_is_cut_in_the_message() -> None:
    problem = read_wish("web-tls", annotated(restart="x" * 100_000)).problem

    assert len(str(problem)) < 500


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("restart", ",".join(["Deployment/web"] * 600), "at most 8192 characters"),
        ("ping-url", "https://a.example.com/" + "x" * 2048, "2048 characters at most"),
        ("duration", "1" * 100_000, "at most 64 characters"),
        ("data-keys", "a" * 100_000 + "=x", "name crt, key or ca"),
    ],
)
def test_what_the_schema_takes_no_more_of_is_told_in_a_few_words(key: str, value: str, remedy: str) -> None:
    problem = read_wish("web-tls", annotated(**{key: value})).problem

    assert problem is not None
    assert remedy in str(problem)
    assert len(str(problem)) < 1000


def test_a_word_that_is_written_twice_is_meant_once() -> None:
    wish = read_wish("web-tls", annotated(formats="combined, der,combined", revoke="OnRenew,OnRenew"))

    assert wish.problem is None
    assert (wish.spec["formats"], wish.spec["revoke"]) == (["combined", "der"], ["OnRenew"])


def test_renew_now_is_an_action_and_no_wish() -> None:
    wish = read_wish("web-tls", annotated(renew_now="2026-03-01"))

    assert wish.problem is None
    assert wish.spec == {"secretName": "web-tls"}


def token_wish(**values: str) -> Wish:
    """What the annotations of a Secret say that asks for a token."""
    wanted = {"token": "true", "names": "web.shop.svc", **values}
    annotations = {annotation.PREFIX + key.replace("_", "-"): value for key, value in wanted.items()}
    return read_wish("web-token", annotations)


@pytest.mark.parametrize(("values", "minutes"), [({}, 5), ({"token_lifetime": "1h"}, 60)])
def test_a_secret_may_ask_for_a_token_instead(values: dict[str, str], minutes: int) -> None:
    wish = token_wish(**values, authority="internal", token_now="1")
    spec = parse_spec("web-token", wish.spec)

    assert wish.problem is None
    assert spec.token == TokenWish(lifetime=timedelta(minutes=minutes))
    assert (spec.authority, spec.names) == ("internal", names("web.shop.svc"))
    assert spec_of().token is None


@pytest.mark.parametrize(
    ("values", "key", "remedy"),
    [
        ({"renew": "true"}, "token", "keep one of the two"),
        ({"token": "yes"}, "token", '"true" or "false"'),
        ({"token_lifetime": "61m"}, "token-lifetime", "1s to 1h"),
        ({"token_lifetime": "0s"}, "token-lifetime", "positive"),
        ({"token_lifetime": "999ms"}, "token-lifetime", "1s to 1h"),
        ({"renew_now": "1"}, "renew-now", "token-now"),
        ({"token": "false", "renew": "true", "token_now": "1"}, "token-now", "not with renew"),
        ({"token": "false", "renew": "true", "token_lifetime": "1m"}, "token-lifetime", "not with renew"),
        ({"duration": "1h"}, "duration", "beside a token"),
        ({"renew_before": "1h"}, "renew-before", "beside a token"),
        ({"key": "EC-P256"}, "key", "beside a token"),
        ({"key_rotation": "Always"}, "key-rotation", "beside a token"),
        ({"data_keys": "crt=a"}, "data-keys", "beside a token"),
        ({"restart": "Never"}, "restart", "beside a token"),
        ({"restart_window": "0 2 * * * for 4h"}, "restart-window", "beside a token"),
        ({"formats": "der"}, "formats", "beside a token"),
        ({"pkcs12_password_secret": "pw"}, "pkcs12-password-secret", "beside a token"),
        ({"pkcs12_profile": "LegacyDES"}, "pkcs12-profile", "beside a token"),
        ({"verify": "8443"}, "verify", "beside a token"),
        ({"revoke": "OnDelete"}, "revoke", "beside a token"),
        ({"ping_url": "https://a.example.com"}, "ping-url", "beside a token"),
        ({"revoke_now": "1"}, "revoke-now", "beside a token"),
    ],
)
def test_what_does_not_go_with_a_token_is_told(values: dict[str, str], key: str, remedy: str) -> None:
    problem = token_wish(**values).problem

    assert problem is not None
    assert problem.field == f"annotation certrenewal.dev/{key}"
    assert remedy in str(problem)


def test_restart_auto_is_what_the_api_server_writes_and_says_nothing() -> None:
    assert parse_spec("web-token", {"token": {"lifetime": "5m"}, "restart": "Auto"}).token == TokenWish()


def test_other_peoples_annotations_count_for_nothing() -> None:
    wish = read_wish("web-tls", {**annotated(), "cert-manager.io/names": "a..b", "names": "a..b"})

    assert wish.problem is None
    assert wish.spec == {"secretName": "web-tls"}


@pytest.mark.parametrize(
    ("annotations", "opted_in"),
    [
        pytest.param({}, False, id="absent"),
        pytest.param({annotation.RENEW: "false"}, False, id="false"),
        pytest.param({annotation.RENEW: "true"}, True, id="true"),
        pytest.param({annotation.RENEW: "yes"}, True, id="unreadable: asks, so that somebody hears of it"),
        pytest.param({annotation.NAMES: "web.shop"}, False, id="names alone"),
    ],
)
def test_only_a_secret_that_asks_is_touched(annotations: dict[str, str], opted_in: bool) -> None:
    assert is_opted_in(annotations) is opted_in


@pytest.mark.parametrize(
    ("spec", "field", "remedy"),
    [
        pytest.param({"secretName": "Web"}, "spec.secretName", "Kubernetes object", id="secretName"),
        pytest.param({"authority": "a b"}, "spec.authority", "Kubernetes object", id="authority"),
        pytest.param({"names": []}, "spec.names", "from one to 100", id="no name"),
        pytest.param({"names": [f"w{n}.shop" for n in range(101)]}, "spec.names", "from one to 100", id="101 names"),
        pytest.param({"names": ["spiffe://td/" + "x" * 1013]}, "spec.names", "longer than 1024", id="endless name"),
        pytest.param(
            {"duration": "1h", "renewBefore": "60m"},
            "spec.renewBefore",
            "less than spec.duration",
            id="all of its life",
        ),
        pytest.param({"names": ["a..b"]}, "spec.names", "has a label ''", id="names"),
        pytest.param({"duration": "1d"}, "spec.duration", "24h", id="duration"),
        pytest.param({"renewBefore": "0%"}, "spec.renewBefore", "1% to 99%", id="renewBefore"),
        pytest.param({"key": {"algorithm": "DSA"}}, "spec.key.algorithm", "EC-P256", id="algorithm"),
        pytest.param({"key": {"rotation": "never"}}, "spec.key.rotation", "Never", id="rotation"),
        pytest.param({"dataKeys": {"crt": "x", "key": "x"}}, "spec.dataKeys", "different", id="dataKeys"),
        pytest.param({"restart": "all"}, "spec.restart", "Auto", id="restart"),
        pytest.param({"verify": {"port": 0}}, "spec.verify", "1 to 65535", id="verify"),
        pytest.param({"verify": {"host": "web"}}, "spec.verify", "1 to 65535", id="verify without a port"),
    ],
)
def test_a_spec_written_by_hand_is_told_its_field(spec: dict[str, Any], field: str, remedy: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        parse_spec("web-tls", spec)

    assert refusal.value.field == field
    assert str(refusal.value).startswith(f"{field}: ")
    assert remedy in str(refusal.value)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"names": [f"w{n}.shop" for n in range(100)]}, id="100 names"),
        pytest.param({"names": ["spiffe://td/" + "x" * 1012]}, id="name of 1024 characters"),
        pytest.param({"duration": "1h", "renewBefore": "59m"}, id="almost all of its life"),
        pytest.param({"duration": "1h", "renewBefore": "99%"}, id="almost all of its life as a share"),
        pytest.param({"renewBefore": "1000h"}, id="a duration that only the CA can judge"),
        pytest.param({"secretName": "a" * 253}, id="the longest name of an object"),
        pytest.param({"key": {}, "dataKeys": {}, "names": None}, id="empty parts"),
    ],
)
def test_a_spec_at_its_limits_is_read(spec: dict[str, Any]) -> None:
    parse_spec("web-tls", spec)


def test_a_spec_without_a_secret_means_the_one_of_its_own_name() -> None:
    assert parse_spec("web-tls", {}).secret_name == "web-tls"
    assert parse_spec("web-tls", {"secretName": "other"}).secret_name == "other"


@pytest.mark.parametrize(
    ("restart", "web", "db"),
    [
        pytest.param(Restart("Auto"), True, True, id="Auto: everybody"),
        pytest.param(Restart("Never"), False, False, id="Never: nobody"),
        pytest.param(Restart("Listed", frozenset({WEB})), True, False, id="list: those listed"),
    ],
)
def test_restart_covers_whom_it_names(restart: Restart, web: bool, db: bool) -> None:
    assert (restart.covers(WEB), restart.covers(DB)) == (web, db)


LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
WORKLOADS = st.builds("{}/{}".format, st.sampled_from(["Deployment", "StatefulSet", "DaemonSet"]), LABELS)
READABLE = st.fixed_dictionaries(
    {},
    optional={
        "authority": LABELS,
        "names": st.lists(st.builds("{}.{}".format, LABELS, LABELS), min_size=1, max_size=4).map(", ".join),
        "duration": st.integers(2, 10_000).map("{}h".format),
        "renew-before": st.integers(1, 119).map("{}m".format) | st.integers(1, 99).map("{}%".format),
        "key": st.sampled_from(list(KeyAlgorithm)).map(str),
        "key-rotation": st.sampled_from(list(KeyRotation)).map(str),
        "data-keys": st.just("crt=chain.pem,key=key.pem"),
        "verify": st.integers(1, 65535).map(str) | st.builds("{}.svc:{}".format, LABELS, st.integers(1, 65535)),
        "restart": st.sampled_from(["Auto", "Never"]) | st.lists(WORKLOADS, min_size=1).map(",".join),
    },
)


@given(READABLE)
def test_annotations_and_the_spec_made_of_them_mean_the_same(values: dict[str, str]) -> None:
    spec = spec_of(**values)

    assert set(read_wish("web-tls", annotated(**values)).spec) - {"secretName"} == {_FIELDS[key] for key in values}
    assert ", ".join(map(str, spec.names)) == ", ".join(dict.fromkeys(values.get("names", "").split(", ")))
    assert spec.authority == values.get("authority", "default")


_FIELDS = {
    "authority": "authority",
    "names": "names",
    "duration": "duration",
    "renew-before": "renewBefore",
    "key": "key",
    "key-rotation": "key",
    "data-keys": "dataKeys",
    "verify": "verify",
    "restart": "restart",
}

KEYS = st.sampled_from(sorted(annotation.ON_SECRETS)) | st.text(max_size=5).map(annotation.PREFIX.__add__)


@given(st.dictionaries(KEYS, st.text(max_size=40), max_size=6))
def test_whatever_the_annotations_say_the_spec_made_of_them_can_be_read(annotations: dict[str, str]) -> None:
    """The CertRenewal of a Secret is always valid; what was wrong is told beside it."""
    wish = read_wish("web-tls", annotations)

    spec = parse_spec("web-tls", wish.spec)

    assert spec.secret_name == "web-tls"
    if wish.problem is not None:
        assert any(f"annotation {key}: " in str(wish.problem) for key in annotations)


def test_a_name_is_never_made_of_two() -> None:
    spec = spec_of(names="a.shop,b.shop")

    assert all(isinstance(name, Name) for name in spec.names)
    assert len(spec.names) == 2
