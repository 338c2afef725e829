"""Guards: certificates of one workload are renewed and brought in together, and never chase each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from certrenewal.controller.cache import Key, parse_secret_meta
from certrenewal.controller.siblings import SOON, about_to_follow, companion, of_workload, restarted_at, restarting
from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import Workload
from certrenewal.domain.spec import Restart, WorkloadRef, parse_spec
from certrenewal.domain.status import Condition, moment_of, timestamp, with_condition, with_failure
from tests.unit.builders import DAY, NOON, WEB
from tests.unit.fleet import NAMESPACE, Fleet

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
A, B, C = (Key(NAMESPACE, name) for name in "abc")
DUE = NOON + 16 * HOUR
SHARE = 0.1


@pytest.fixture
async def fleet() -> Fleet:
    """Deployment web with two certificates, and a third that it does not use."""
    fleet = Fleet()
    for key in (A, B, C):
        fleet.certificate(key.name, due=DUE - NOON)
    fleet.deploy("web", "a", "b")
    for key in (A, B, C):
        fleet.look(key)
    return fleet


def web(fleet: Fleet) -> Workload:
    workload = fleet.cache.workload(NAMESPACE, WEB)
    assert workload is not None
    return workload


def test_a_claim_that_did_not_win_counts_for_nothing(fleet: Fleet) -> None:
    lost = Condition(type="Ready", status="False", reason=Reason.CONFLICT, message="")
    known = fleet.cache.renewals[B]
    status = with_condition(known.status, lost, generation=1, now=NOON)
    fleet.cache.put_renewal(replace(known, key=Key(NAMESPACE, "rival"), status=status))

    assert [renewal.key.name for renewal in of_workload(fleet.cache, web(fleet))] == ["a", "b"]


def change(fleet: Fleet, key: Key, **spec: str) -> None:
    """Another spec, of the same generation."""
    renewal = fleet.cache.renewals[key]
    fleet.cache.put_renewal(replace(renewal, spec={**renewal.spec, **spec}))


# -- who belongs together ------------------------------------------------------------------------------------------


def test_the_certificates_of_a_workload_are_those_whose_secrets_it_uses(fleet: Fleet) -> None:
    rival = replace(fleet.cache.renewals[B], key=Key(NAMESPACE, "rival"))
    fleet.cache.put_renewal(rival)

    assert [renewal.key.name for renewal in of_workload(fleet.cache, web(fleet))] == ["a", "b", "rival"]


@pytest.mark.parametrize(
    ("restart", "names"),
    [("Auto", ["a", "b"]), ("Deployment/web", ["a", "b"]), ("Deployment/db", ["a"]), ("Never", ["a"]), ("???", ["a"])],
)
def test_only_those_that_restart_it_count_for_its_restart(fleet: Fleet, restart: str, names: list[str]) -> None:
    change(fleet, B, restart=restart)

    assert [renewal.key.name for renewal in restarting(fleet.cache, web(fleet))] == names


def test_the_last_restart_is_that_for_any_of_its_certificates(fleet: Fleet) -> None:
    assert restarted_at(fleet.cache, web(fleet)) is None
    for key, moment in ((A, NOON), (B, NOON + HOUR)):
        entries = [
            {"kind": "Deployment", "name": name, "state": "Healthy", "restartedAt": timestamp(at)}
            for name, at in (("web", moment), ("db", NOON + DAY))
        ]
        fleet.write(key, {**fleet.status(key), "workloads": entries})

    assert restarted_at(fleet.cache, web(fleet)) == NOON + HOUR


# -- who is renewed along ------------------------------------------------------------------------------------------


def found(fleet: Fleet, key: Key, restart: str = "Auto") -> str | None:
    spec = parse_spec(key.name, {"restart": restart})
    return companion(fleet.cache, fleet.cache.renewals[key], spec.restart)


def test_a_workload_that_waits_for_another_certificate_is_company(fleet: Fleet) -> None:
    assert found(fleet, B) is None

    fleet.renew("a")

    assert found(fleet, B) == "Deployment/web"
    assert found(fleet, C) is None, "another's workload"


def test_one_that_the_workload_waits_for_itself_is_not_renewed_once_more(fleet: Fleet) -> None:
    """Two certificates of one workload that soon end would otherwise renew each other until it is restarted."""
    fleet.renew("a")
    fleet.renew("b", by=Reason.SIBLING_RENEWED)

    assert found(fleet, A) is None
    assert found(fleet, B) is None


def opted_out(fleet: Fleet) -> None:
    fleet.annotate("web", restart="Never")


def restarted(fleet: Fleet) -> None:
    fleet.renew("a", by=Reason.RENEWAL_REQUESTED)
    entries = [{**entry, "state": "Restarting"} for entry in fleet.status(A)["workloads"]]
    fleet.write(A, {**fleet.status(A), "workloads": entries})


@pytest.mark.parametrize("state", [opted_out, restarted])
def test_a_workload_that_is_not_about_to_be_restarted_is_no_company(
    fleet: Fleet, state: Callable[[Fleet], None]
) -> None:
    fleet.renew("a")

    state(fleet)

    assert found(fleet, B) is None


@pytest.mark.parametrize(("restart", "company"), [("Never", False), ("Deployment/db", False), ("Deployment/web", True)])
def test_only_a_workload_that_it_restarts_is_company(fleet: Fleet, restart: str, company: bool) -> None:
    fleet.renew("a")

    assert (found(fleet, B, restart) is not None) is company
    assert Restart("Auto").covers(WorkloadRef("Deployment", "web"))


# -- who is waited for ---------------------------------------------------------------------------------------------


def follows(fleet: Fleet, key: Key = B, *, before: timedelta = 8 * HOUR, together: float = SHARE) -> bool:
    """Whether it is about to be renewed, so long before it is due."""
    return about_to_follow(fleet.cache, fleet.cache.renewals[key], together=together, now=DUE - before)


def test_who_is_not_due_is_not_waited_for(fleet: Fleet) -> None:
    assert not follows(fleet)


@pytest.mark.parametrize(
    ("before", "together", "expected"),
    [
        pytest.param(DAY / 10, SHARE, True, id="within a tenth of its life"),
        pytest.param(DAY / 10 + SECOND, SHARE, False, id="a second more"),
        pytest.param(SOON, 0.0, True, id="due in a moment"),
        pytest.param(SOON + SECOND, 0.0, False, id="not together"),
        pytest.param(-HOUR, SHARE, True, id="overdue"),
    ],
)
def test_who_is_due_soon_is_waited_for(fleet: Fleet, before: timedelta, together: float, expected: bool) -> None:
    assert follows(fleet, before=before, together=together) is expected


def test_who_was_not_looked_at_yet_is_waited_for(fleet: Fleet) -> None:
    renewal = fleet.cache.renewals[B]

    fleet.cache.put_renewal(replace(renewal, generation=2))
    assert follows(fleet)
    fleet.cache.put_renewal(replace(renewal, status={}))
    assert follows(fleet)


def test_who_is_to_be_renewed_now_is_waited_for(fleet: Fleet) -> None:
    renewal = fleet.cache.renewals[B]

    fleet.cache.put_renewal(replace(renewal, renew_now="1"))
    assert follows(fleet)
    fleet.cache.put_renewal(replace(renewal, renew_now="1", status={**renewal.status, "renewNow": "1"}))
    assert not follows(fleet)
    annotations = {"certrenewal.dev/renew": "true", "certrenewal.dev/renew-now": "2"}
    metadata = {"namespace": NAMESPACE, "name": "b", "uid": "s", "resourceVersion": "1", "annotations": annotations}
    fleet.cache.see_secret(parse_secret_meta({"metadata": metadata}))
    assert follows(fleet)


def test_who_fails_is_not_waited_for(fleet: Fleet) -> None:
    status = with_failure(fleet.status(B), reason=Reason.AUTHORITY_REFUSED, message="", now=NOON, attempt_at=None)
    fleet.write(B, status)

    assert not follows(fleet, before=-HOUR)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        pytest.param(Reason.MISSING, True, id="its first certificate is being asked for"),
        pytest.param(Reason.ISSUER_CHANGED, True, id="one of this CA is being asked for"),
        pytest.param(Reason.INVALID_SPEC, False, id="unreadable"),
        pytest.param(Reason.CONFLICT, False, id="another keeps the Secret"),
        pytest.param(Reason.IMMUTABLE, False, id="immutable"),
        pytest.param(Reason.AUTHORITY_NOT_READY, False, id="no authority"),
    ],
)
@pytest.mark.parametrize("before", [8 * HOUR, -HOUR], ids=["not due", "overdue"])
def test_who_is_not_ready_is_waited_for_where_the_ca_was_asked(
    fleet: Fleet, reason: Reason, expected: bool, before: timedelta
) -> None:
    ready = Condition(type="Ready", status="False", reason=reason, message="")
    fleet.write(B, with_condition(fleet.status(B), ready, generation=1, now=NOON))

    assert follows(fleet, before=before) is expected


def test_due_is_what_status_says(fleet: Fleet) -> None:
    assert moment_of(fleet.status(B)["renewalTime"]) == DUE
