"""Guards: the warm state says which certificates deserve a look, and news that is stale or nothing new wakes nobody."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.controller.cache import Cache, Key, Renewal, SecretMeta, parse_renewal, parse_secret_meta
from certrenewal.domain import annotation
from certrenewal.domain.spec import WorkloadRef
from tests.unit.builders import WEB, a_workload

WEB_TLS = Key("shop", "web-tls")
OTHER = Key("shop", "other")
BY_HAND = Key("shop", "by-hand")


def a_renewal(name: str = "web-tls", version: int = 1, **changes: Any) -> Renewal:
    facts: dict[str, Any] = {
        "key": Key("shop", name),
        "uid": f"uid-of-{name}",
        "version": version,
        "generation": 1,
        "created": "2026-03-01T12:00:00Z",
        "owner_uid": None,
        "spec": {"secretName": "web-tls"},
        "status": {},
        "renew_now": "",
    }
    return Renewal(**{**facts, **changes})


def a_secret(name: str = "web-tls", version: str = "1", *, renew: str | None = "true", **changes: Any) -> SecretMeta:
    facts: dict[str, Any] = {
        "key": Key("shop", name),
        "uid": f"uid-of-secret-{name}",
        "version": version,
        "annotations": {} if renew is None else {annotation.RENEW: renew},
    }
    return SecretMeta(**{**facts, **changes})


@pytest.fixture
def cache() -> Cache:
    return Cache()


# -- CertRenewals --------------------------------------------------------------------------------------------------


def test_a_new_renewal_deserves_a_look(cache: Cache) -> None:
    assert cache.see_renewal(a_renewal()) == {WEB_TLS}
    assert cache.claims(WEB_TLS) == {WEB_TLS}


@pytest.mark.parametrize("version", [5, 4, 1], ids=["the same version", "an older version", "the first version"])
def test_stale_news_is_ignored(cache: Cache, version: int) -> None:
    """What we wrote is in the cache before the watch shows what was there before it."""
    cache.put_renewal(a_renewal(version=5, status={"restarts": "1/1"}))

    assert cache.see_renewal(a_renewal(version=version, spec={"secretName": "other"})) == set()
    assert cache.renewals[WEB_TLS].status == {"restarts": "1/1"}
    assert cache.claims(OTHER) == set()


def test_versions_are_compared_as_numbers(cache: Cache) -> None:
    cache.see_renewal(a_renewal(version=9))

    assert cache.see_renewal(a_renewal(version=10, generation=2)) == {WEB_TLS}


def test_a_renewal_made_again_is_news_whatever_its_version(cache: Cache) -> None:
    """A restored etcd counts from an earlier number; the uid tells that it is another object."""
    cache.see_renewal(a_renewal(version=9))

    assert cache.see_renewal(a_renewal(version=2, uid="another")) == {WEB_TLS}
    assert cache.renewals[WEB_TLS].uid == "another"


def test_a_renewal_made_again_wakes_its_rivals(cache: Cache) -> None:
    cache.see_renewal(a_renewal(version=9))
    cache.see_renewal(a_renewal("by-hand", version=3))

    assert cache.see_renewal(a_renewal(version=12, uid="another")) == {WEB_TLS, BY_HAND}


def test_our_own_status_is_no_news(cache: Cache) -> None:
    written = a_renewal(version=2, status={"restarts": "1/1"})
    cache.see_renewal(a_renewal(version=1))
    cache.put_renewal(written)

    assert cache.see_renewal(written) == set()


def test_a_status_that_another_wrote_is_news(cache: Cache) -> None:
    """Such as the last write of a former leader, which came late."""
    cache.see_renewal(a_renewal(version=1))

    assert cache.see_renewal(a_renewal(version=2, status={"restarts": "0/1"})) == {WEB_TLS}
    assert cache.renewals[WEB_TLS].status == {"restarts": "0/1"}


@pytest.mark.parametrize(
    "change",
    [{"generation": 2, "spec": {"secretName": "web-tls", "duration": "1h"}}, {"renew_now": "now"}],
    ids=["spec", "renew-now"],
)
def test_what_users_change_is_news(cache: Cache, change: dict[str, Any]) -> None:
    cache.see_renewal(a_renewal(version=1))

    assert cache.see_renewal(a_renewal(version=2, **change)) == {WEB_TLS}


def test_a_new_rival_wakes_the_others(cache: Cache) -> None:
    cache.see_renewal(a_renewal())

    assert cache.see_renewal(a_renewal("by-hand")) == {BY_HAND, WEB_TLS}
    assert cache.claims(WEB_TLS) == {WEB_TLS, BY_HAND}


def test_a_rival_that_goes_wakes_the_others(cache: Cache) -> None:
    cache.see_renewal(a_renewal())
    cache.see_renewal(a_renewal("by-hand"))

    assert cache.lose_renewal(BY_HAND) == {BY_HAND, WEB_TLS}
    assert cache.claims(WEB_TLS) == {WEB_TLS}
    assert BY_HAND not in cache.renewals


def test_a_claim_that_moves_wakes_old_rivals_and_new_ones(cache: Cache) -> None:
    cache.see_renewal(a_renewal())
    cache.see_renewal(a_renewal("other", spec={"secretName": "other"}))
    cache.see_renewal(a_renewal("by-hand"))

    woken = cache.see_renewal(a_renewal("by-hand", version=2, spec={"secretName": "other"}))

    assert woken == {BY_HAND, WEB_TLS, OTHER}
    assert cache.claims(WEB_TLS) == {WEB_TLS}
    assert cache.claims(OTHER) == {OTHER, BY_HAND}


def test_a_claim_that_we_moved_ourselves_leaves_nothing_behind(cache: Cache) -> None:
    cache.put_renewal(a_renewal())

    cache.put_renewal(a_renewal(version=2, spec={"secretName": "other"}))

    assert (cache.claims(WEB_TLS), cache.claims(OTHER)) == (set(), {WEB_TLS})


def test_a_renewal_that_nobody_knew_is_lost_without_a_word(cache: Cache) -> None:
    assert cache.lose_renewal(WEB_TLS) == set()


def test_a_renewal_without_a_secret_name_claims_the_one_of_its_own_name() -> None:
    assert a_renewal(spec={}).secret == WEB_TLS


def test_asking_for_claims_changes_nothing(cache: Cache) -> None:
    cache.see_renewal(a_renewal())

    cache.claims(WEB_TLS).clear()

    assert cache.claims(WEB_TLS) == {WEB_TLS}


@pytest.mark.parametrize(
    ("status", "urgency"),
    [
        pytest.param({}, 0.0, id="no certificate: at once"),
        pytest.param({"certificate": {"notAfter": "2026-03-02T12:00:00Z"}}, 1772452800.0, id="its end"),
        pytest.param({"certificate": {"notAfter": "later"}}, 0.0, id="unreadable"),
        pytest.param({"certificate": None}, 0.0, id="null"),
    ],
)
def test_how_urgent_a_certificate_is(status: dict[str, Any], urgency: float) -> None:
    assert a_renewal(status=status).urgency == urgency


# -- Secrets -------------------------------------------------------------------------------------------------------


def test_a_secret_that_asks_deserves_a_look(cache: Cache) -> None:
    assert cache.see_secret(a_secret()) == {WEB_TLS}


def test_a_secret_that_neither_asks_nor_is_claimed_is_not_kept(cache: Cache) -> None:
    assert cache.see_secret(a_secret(renew=None)) == set()
    assert cache.secrets == {}


def test_a_secret_that_is_claimed_wakes_those_who_claim_it(cache: Cache) -> None:
    cache.see_renewal(a_renewal("by-hand"))

    assert cache.see_secret(a_secret(renew=None)) == {BY_HAND}
    assert cache.secrets[WEB_TLS].version == "1"


def test_a_secret_seen_again_is_no_news(cache: Cache) -> None:
    cache.see_secret(a_secret(version="7"))

    assert cache.see_secret(a_secret(version="7")) == set()


def test_a_secret_that_was_written_is_news(cache: Cache) -> None:
    cache.see_secret(a_secret(version="7"))

    assert cache.see_secret(a_secret(version="8")) == {WEB_TLS}
    assert cache.secrets[WEB_TLS].version == "8"


@pytest.mark.parametrize("renew", [None, "false"])
def test_a_secret_that_no_longer_asks_deserves_a_last_look(cache: Cache, renew: str | None) -> None:
    cache.see_secret(a_secret())

    assert cache.see_secret(a_secret(version="2", renew=renew)) == {WEB_TLS}
    assert cache.secrets == {}
    assert cache.see_secret(a_secret(version="3", renew=renew)) == set()


def test_a_password_that_one_look_has_read_is_still_news_to_all_who_use_it(cache: Cache) -> None:
    for name in ("a", "b"):
        cache.see_renewal(a_renewal(name, spec={"pkcs12": {"passwordSecretRef": {"name": "store-password"}}}))
    cache.see_secret(a_secret("store-password", "1", renew=None))

    cache.know_secret(a_secret("store-password", "2", renew=None))

    assert cache.see_secret(a_secret("store-password", "2", renew=None)) == {Key("shop", "a"), Key("shop", "b")}


def test_a_password_that_the_watch_showed_before_anybody_asked_is_known_once_it_was_read(cache: Cache) -> None:
    cache.know_secret(a_secret("store-password", renew=None))

    assert cache.secrets[Key("shop", "store-password")].version == "1"


def test_a_secret_that_is_gone_wakes_all_that_it_concerns(cache: Cache) -> None:
    cache.see_renewal(a_renewal("by-hand"))
    cache.see_secret(a_secret())

    assert cache.lose_secret(WEB_TLS) == {BY_HAND, WEB_TLS}
    assert cache.secrets == {}


def test_a_secret_that_concerned_nobody_is_gone_without_a_word(cache: Cache) -> None:
    cache.see_secret(a_secret(renew=None))

    assert cache.lose_secret(WEB_TLS) == set()


# -- workloads -----------------------------------------------------------------------------------------------------


def test_a_workload_wakes_the_certificates_that_it_uses(cache: Cache) -> None:
    cache.see_renewal(a_renewal())
    cache.see_renewal(a_renewal("other", spec={"secretName": "other"}))

    assert cache.see_workload(a_workload()) == {WEB_TLS}
    assert cache.dependents(WEB_TLS) == [a_workload()]
    assert cache.dependents(OTHER) == []


def test_a_workload_that_uses_no_certificate_wakes_nobody(cache: Cache) -> None:
    cache.see_renewal(a_renewal())

    assert cache.see_workload(a_workload(secrets=frozenset({"unrelated"}))) == set()


def test_a_workload_seen_again_unchanged_is_no_news(cache: Cache) -> None:
    cache.see_renewal(a_renewal())
    cache.see_workload(a_workload())

    assert cache.see_workload(a_workload()) == set()


@pytest.mark.parametrize(
    "change", [{"complete": False}, {"marks": {"x": "y"}}, {"opted_out": True}, {"failed": "timed out"}], ids=str
)
def test_a_workload_that_stands_differently_is_news(cache: Cache, change: dict[str, Any]) -> None:
    cache.see_renewal(a_renewal())
    cache.see_workload(a_workload())

    assert cache.see_workload(a_workload(**change)) == {WEB_TLS}


def test_a_workload_that_turns_to_another_secret_wakes_both(cache: Cache) -> None:
    cache.see_renewal(a_renewal())
    cache.see_renewal(a_renewal("other", spec={"secretName": "other"}))
    cache.see_workload(a_workload())

    woken = cache.see_workload(a_workload(secrets=frozenset({"other"})))

    assert woken == {WEB_TLS, OTHER}
    assert cache.dependents(WEB_TLS) == []
    assert [w.ref for w in cache.dependents(OTHER)] == [WEB]


def test_a_workload_that_is_gone_depends_on_nothing(cache: Cache) -> None:
    cache.see_renewal(a_renewal())
    cache.see_workload(a_workload())

    assert cache.lose_workload("shop", WEB) == {WEB_TLS}
    assert cache.dependents(WEB_TLS) == []
    assert cache.workload("shop", WEB) is None
    assert cache.lose_workload("shop", WEB) == set()


def test_workloads_of_the_same_name_elsewhere_are_others(cache: Cache) -> None:
    cache.see_renewal(a_renewal())

    assert cache.see_workload(a_workload(namespace="bank")) == set()
    assert cache.dependents(WEB_TLS) == []


def test_dependents_come_in_order(cache: Cache) -> None:
    refs = [WorkloadRef("StatefulSet", "a"), WorkloadRef("Deployment", "z"), WorkloadRef("Deployment", "b")]
    for ref in refs:
        cache.see_workload(a_workload(ref=ref))

    assert [w.ref for w in cache.dependents(WEB_TLS)] == sorted(refs)


SECRETS = st.frozensets(st.sampled_from(["web-tls", "other", "third"]))


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), SECRETS | st.none()), max_size=12))
def test_dependents_are_just_the_workloads_that_use_the_secret(news: list[tuple[str, frozenset[str] | None]]) -> None:
    cache = Cache()
    live: dict[str, frozenset[str]] = {}
    for name, secrets in news:
        ref = WorkloadRef("Deployment", name)
        if secrets is None:
            live.pop(name, None)
            cache.lose_workload("shop", ref)
        else:
            live[name] = secrets
            cache.see_workload(a_workload(ref=ref, secrets=secrets))

    for secret in ("web-tls", "other", "third"):
        users = [w.ref.name for w in cache.dependents(Key("shop", secret))]
        assert users == sorted(name for name, secrets in live.items() if secret in secrets)


# -- namespaces ----------------------------------------------------------------------------------------------------


def test_a_namespace_is_news_when_it_is_new_or_its_labels_are(cache: Cache) -> None:
    assert cache.see_namespace("shop", "uid", {"team": "a"})
    assert not cache.see_namespace("shop", "uid", {"team": "a"})
    assert cache.see_namespace("shop", "uid", {"team": "b"})
    assert cache.labels == {"shop": {"team": "b"}}


def test_a_namespace_that_is_gone_has_no_labels(cache: Cache) -> None:
    cache.see_namespace("shop", "uid", {})

    assert cache.lose_namespace("shop", "uid")
    assert not cache.lose_namespace("shop", "uid")
    assert cache.labels == {}


def test_a_namespace_is_not_lost_with_the_one_that_had_its_name_before(cache: Cache) -> None:
    cache.see_namespace("shop", "before", {})
    cache.see_namespace("shop", "now", {})

    assert not cache.lose_namespace("shop", "before")
    assert cache.labels == {"shop": {}}


# -- reading objects -----------------------------------------------------------------------------------------------


def test_a_renewal_is_read_as_the_api_server_gives_it() -> None:
    body = {
        "metadata": {
            "namespace": "shop",
            "name": "web-tls",
            "uid": "u1",
            "resourceVersion": "42",
            "generation": 3,
            "creationTimestamp": "2026-03-01T12:00:00Z",
            "annotations": {annotation.RENEW_NOW: "again"},
            "ownerReferences": [
                {"kind": "Application", "uid": "x", "controller": False},
                {"kind": "Secret", "uid": "not in control"},
                {"kind": "Secret", "uid": "s1", "controller": True},
            ],
        },
        "spec": {"secretName": "web-tls"},
        "status": {"restarts": "1/1"},
    }

    assert parse_renewal(body) == Renewal(
        key=WEB_TLS,
        uid="u1",
        version=42,
        generation=3,
        created="2026-03-01T12:00:00Z",
        owner_uid="s1",
        spec={"secretName": "web-tls"},
        status={"restarts": "1/1"},
        renew_now="again",
    )


def test_a_renewal_of_which_somebody_else_is_in_control_was_written_by_hand() -> None:
    metadata = {
        "namespace": "shop",
        "name": "web-tls",
        "uid": "u1",
        "resourceVersion": "42",
        "creationTimestamp": "2026-03-01T12:00:00Z",
        "ownerReferences": [{"kind": "Secret", "uid": "s1"}],
    }

    renewal = parse_renewal({"metadata": metadata})

    assert renewal.owner_uid is None
    assert (renewal.generation, renewal.spec, renewal.status, renewal.renew_now) == (1, {}, {}, "")


def test_of_a_secret_only_our_annotations_are_kept() -> None:
    """An annotation such as kubectl's last-applied holds a copy of the data."""
    metadata = {
        "namespace": "shop",
        "name": "web-tls",
        "uid": "s1",
        "resourceVersion": "42",
        "annotations": {
            annotation.RENEW: "true",
            "kubectl.kubernetes.io/last-applied-configuration": '{"data": {"tls.key": "c2VjcmV0"}}',
        },
    }

    secret = parse_secret_meta({"metadata": metadata, "data": {"tls.key": "c2VjcmV0"}})

    assert secret.annotations == {annotation.RENEW: "true"}
    assert "c2VjcmV0" not in repr(secret)


def test_a_key_reads_as_users_write_it() -> None:
    assert str(WEB_TLS) == "shop/web-tls"


def test_the_answer_to_a_restart_that_comes_after_newer_news_of_the_watch_counts_for_nothing() -> None:
    cache = Cache()
    cache.see_workload(a_workload(version=9, complete=True))

    assert cache.see_workload(a_workload(version=8, complete=False)) == set()

    (workload,) = cache.dependents(Key("shop", "web-tls"))
    assert workload.complete


def test_a_workload_that_was_made_anew_is_news_whatever_its_version() -> None:
    cache = Cache()
    cache.see_workload(a_workload(version=9))

    cache.see_workload(a_workload(version=8, uid="another", complete=False))

    (workload,) = cache.dependents(Key("shop", "web-tls"))
    assert workload.uid == "another"


def test_the_answer_to_a_write_that_comes_after_newer_news_of_the_watch_counts_for_nothing() -> None:
    cache = Cache()
    cache.see_renewal(a_renewal(version=9, spec={"secretName": "other"}))

    cache.put_renewal(a_renewal(version=8, spec={"secretName": "web-tls"}))

    assert cache.renewals[WEB_TLS].secret == OTHER
    assert cache.claims(OTHER) == {WEB_TLS}


# -- answers to writes of ours ---------------------------------------------------------------------------------------


def test_nothing_is_kept_of_what_is_gone(cache: Cache) -> None:
    cache.see_renewal(a_renewal())

    cache.lose_renewal(WEB_TLS)

    assert not cache._claims


def test_an_answer_brings_nothing_back_that_is_gone(cache: Cache) -> None:
    cache.see_renewal(a_renewal())
    cache.lose_renewal(WEB_TLS)

    cache.answer_renewal(a_renewal(version=2))
    cache.see_renewal(a_renewal(version=3, uid="another"))
    cache.answer_renewal(a_renewal(version=4))

    assert cache.renewals[WEB_TLS].uid == "another"
