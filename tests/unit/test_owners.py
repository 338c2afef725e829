"""Guards: what a controller made is restarted through its topmost owner, for all that the owner's workloads use."""

from __future__ import annotations

from typing import Any

import pytest

from certrenewal.controller.cache import Cache, Key
from certrenewal.controller.siblings import companion, restarting
from certrenewal.domain.kinds import Owner, Resource
from certrenewal.domain.reload import Reload
from certrenewal.domain.rollout import State, Workload, mark
from certrenewal.domain.spec import Restart, WorkloadRef
from certrenewal.domain.standing import Current, excuse, stand
from certrenewal.domain.status import Ran, Recorded
from tests.unit.builders import NOON, WEB, a_workload
from tests.unit.test_cache import a_renewal

WEB_TLS = Key("shop", "web-tls")
TOP = WorkloadRef("Rollout", "top")
MIDDLE = WorkloadRef("Canary", "middle")
ROLLOUTS = Resource("argoproj.io", "v1alpha1", "rollouts")


@pytest.fixture
def cache() -> Cache:
    """One with a CertRenewal of Secret web-tls."""
    cache = Cache()
    cache.see_renewal(a_renewal())
    return cache


def web(owner: WorkloadRef = TOP, uid: str = "", **changes: Any) -> Workload:
    """Deployment web, which uses the Secret and belongs to an owner."""
    return a_workload(owner=Owner(owner, uid or owner.name), **changes)


def an_owner(ref: WorkloadRef = TOP, of: WorkloadRef | None = None, **changes: Any) -> Workload:
    """An owner that uses no Secret itself."""
    owner = Owner(of, of.name) if of else None
    facts = {"ref": ref, "uid": ref.name, "resource": ROLLOUTS, "secrets": frozenset(), "owner": owner}
    return a_workload(**{**facts, **changes})


def dependents(cache: Cache) -> dict[str, str]:
    """Each dependent, and who is restarted in its place."""
    return {str(found.ref): str(found.through or "") for found in cache.dependents(WEB_TLS)}


# -- who stands in for whom ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, -1], ids=["owner first", "owner last"])
def test_an_owner_depends_on_what_it_owns_uses(cache: Cache, order: int) -> None:
    for workload in (an_owner(), web())[::order]:
        cache.see_workload(workload)

    assert dependents(cache) == {"Deployment/web": "Rollout/top", "Rollout/top": ""}
    top = cache.workload("shop", TOP)
    assert top is not None
    assert top.secrets == {"web-tls"}


def test_an_owner_keeps_the_secrets_of_its_own(cache: Cache) -> None:
    cache.see_workload(an_owner(secrets=frozenset({"own"})))
    cache.see_workload(web())

    top = cache.workload("shop", TOP)

    assert top is not None
    assert top.secrets == {"own", "web-tls"}


def test_the_topmost_owner_with_a_template_counts(cache: Cache) -> None:
    highest = WorkloadRef("App", "highest")
    for workload in (
        an_owner(highest, has_template=False),
        an_owner(TOP, of=highest),
        an_owner(MIDDLE, of=TOP),
        web(MIDDLE),
    ):
        cache.see_workload(workload)

    assert dependents(cache) == {"Deployment/web": "Rollout/top", "Rollout/top": ""}


def test_an_owner_without_a_template_between_two_is_passed(cache: Cache) -> None:
    for workload in (an_owner(), an_owner(MIDDLE, of=TOP, has_template=False), web(MIDDLE)):
        cache.see_workload(workload)

    assert dependents(cache) == {"Deployment/web": "Rollout/top", "Rollout/top": ""}


@pytest.mark.parametrize(
    "owned",
    [
        pytest.param(web(WorkloadRef("Database", "db")), id="an owner of a kind that is not watched"),
        pytest.param(web(uid="before"), id="an owner of that name before this one"),
        pytest.param(web(namespace="shop", opted_out=True), id="it opted out"),
        pytest.param(web(fault="unreadable"), id="it cannot be read"),
        pytest.param(web(reload=Reload(command=("kill",))), id="it reloads by itself"),
        pytest.param(a_workload(), id="no owner"),
    ],
)
def test_who_stands_for_itself_passes_nothing_on(cache: Cache, owned: Workload) -> None:
    cache.see_workload(an_owner())
    cache.see_workload(owned)

    assert dependents(cache) == {"Deployment/web": ""}
    top = cache.workload("shop", TOP)
    assert top is not None
    assert top.secrets == frozenset()


def test_those_that_own_each_other_stand_for_themselves(cache: Cache) -> None:
    cache.see_workload(web())
    cache.see_workload(a_workload(ref=TOP, uid="top", resource=ROLLOUTS, owner=Owner(WEB, "w1")))

    assert dependents(cache) == {"Deployment/web": "", "Rollout/top": ""}


# -- news ----------------------------------------------------------------------------------------------------------


def test_news_of_an_owner_wakes_what_those_that_it_owns_use(cache: Cache) -> None:
    cache.see_workload(web(MIDDLE))
    cache.see_workload(an_owner(MIDDLE, of=TOP))

    assert cache.see_workload(an_owner()) == {WEB_TLS}
    assert cache.see_workload(an_owner(complete=False)) == {WEB_TLS}
    assert cache.lose_workload("shop", TOP) == {WEB_TLS}
    assert dependents(cache) == {"Canary/middle": "", "Deployment/web": "Canary/middle"}


def test_a_workload_that_changes_hands_leaves_nothing_behind(cache: Cache) -> None:
    for workload in (an_owner(), an_owner(MIDDLE), web()):
        cache.see_workload(workload)

    assert cache.see_workload(web(MIDDLE)) == {WEB_TLS}
    assert dependents(cache) == {"Canary/middle": "", "Deployment/web": "Canary/middle"}
    assert cache.lose_workload("shop", WEB) == {WEB_TLS}
    assert dependents(cache) == {}
    assert cache._owned == {}


def test_what_uses_nothing_and_is_never_restarted_is_not_kept(cache: Cache) -> None:
    job = a_workload(ref=WorkloadRef("Job", "once"))

    assert cache.see_workload(job) == {WEB_TLS}
    assert cache.see_workload(a_workload(ref=job.ref, secrets=frozenset())) == {WEB_TLS}
    assert cache.workload("shop", job.ref) is None


# -- how they stand ------------------------------------------------------------------------------------------------

OLD, NEW = "a" * 64, "b" * 64


def standings(cache: Cache, restart: Restart) -> dict[str, tuple[State, str]]:
    current = Current(secret="web-tls", runs=Ran(mark(NEW)), restart=restart)
    recorded = Recorded({"certificate": {"fingerprint": OLD}})
    found = stand(cache.dependents(WEB_TLS), current, recorded, NOON)
    return {str(standing.ref): (standing.state, standing.message) for standing in found}


@pytest.mark.parametrize(
    ("restart", "top", "words"),
    [
        (Restart(), State.PENDING, "restarted through Rollout/top"),
        (Restart("Never"), State.SKIPPED, ""),
        (Restart("Listed", frozenset({TOP})), State.PENDING, "restarted through Rollout/top"),
        (Restart("Listed", frozenset({WEB})), State.PENDING, "restarted through Rollout/top"),
        (Restart("Listed", frozenset({WorkloadRef("Deployment", "other")})), State.SKIPPED, ""),
    ],
    ids=["Auto", "Never", "the owner listed", "the owned listed", "another listed"],
)
def test_the_owner_is_restarted_and_the_owned_skipped(cache: Cache, restart: Restart, top: State, words: str) -> None:
    cache.see_workload(an_owner())
    cache.see_workload(web())

    assert standings(cache, restart) == {"Rollout/top": (top, ""), "Deployment/web": (State.SKIPPED, words)}


def test_an_owner_that_opted_out_is_left_alone_with_all_that_it_owns(cache: Cache) -> None:
    cache.see_workload(an_owner(opted_out=True))
    cache.see_workload(web())

    assert {state for state, _ in standings(cache, Restart()).values()} == {State.SKIPPED}


@pytest.mark.parametrize(
    ("kind", "words"),
    [("CronJob", "takes the certificate at its next run"), ("Job", "a Job is not"), ("Pod", "delete it and create it")],
)
@pytest.mark.parametrize("restart", [Restart(), Restart("Never")], ids=["Auto", "Never"])
def test_what_is_never_restarted_is_named_with_its_remedy(kind: str, words: str, restart: Restart) -> None:
    found = excuse(a_workload(ref=WorkloadRef(kind, "once")), "web-tls", restart)

    assert words in (found or "")


def test_the_certificates_of_what_it_owns_are_the_owners(cache: Cache) -> None:
    cache.see_workload(an_owner())
    cache.see_workload(web())
    top, owned = cache.workload("shop", TOP), cache.workload("shop", WEB)
    assert top is not None
    assert owned is not None

    assert [renewal.key for renewal in restarting(cache, top)] == [WEB_TLS]
    assert list(restarting(cache, owned)) == []


def test_an_owner_that_waits_brings_the_other_certificates_along(cache: Cache) -> None:
    waits = {"workloads": [{"kind": "Rollout", "name": "top", "state": "Pending"}]}
    cache.see_renewal(a_renewal("other", spec={"secretName": "other"}, status=waits))
    cache.see_workload(an_owner(secrets=frozenset({"other"})))
    cache.see_workload(web())

    assert companion(cache, cache.renewals[WEB_TLS], Restart()) == "Rollout/top"
    assert companion(cache, cache.renewals[WEB_TLS], Restart("Listed", frozenset({WEB}))) == "Rollout/top"
    assert companion(cache, cache.renewals[WEB_TLS], Restart("Never")) is None
