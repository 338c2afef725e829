"""Guards: what a workload is owed is worked out from objects alone, all its certificates as one restart."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from certrenewal.controller.cache import Key
from certrenewal.controller.owed import Debt, Owed, current_of, debt_of, owed
from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import State
from certrenewal.domain.spec import WorkloadRef, parse_spec
from certrenewal.domain.status import Ran, Standing
from tests.unit.builders import DAY, NOON, WEB
from tests.unit.fleet import NAMESPACE, Fleet

HOUR = timedelta(hours=1)


def a_debt(
    secret: str = "a", mark: str = "new", *, until: datetime | None = None, by_hand: bool = False, **standing: object
) -> Debt:
    """Something that Deployment web does not run yet."""
    stands = Standing(ref=WEB, state=State.PENDING, runs=Ran("old", until))
    return Debt(secret=secret, mark=mark, standing=replace(stands, **standing), by_hand=by_hand)  # type: ignore[arg-type]


# -- several debts -------------------------------------------------------------------------------------------------


def test_nothing_is_owed_to_begin_with() -> None:
    nothing = Owed()

    assert not nothing
    assert nothing.marks == {}
    assert (nothing.held, nothing.by_hand, nothing.opening, nothing.must_by) == (False, False, None, None)


def test_each_secret_counts_once_with_the_last_that_came() -> None:
    several = Owed().with_debt(a_debt("a", "1")).with_debt(a_debt("b", "2")).with_debt(a_debt("a", "3"))

    assert several.marks == {"certificate.certrenewal.dev/a": "3", "certificate.certrenewal.dev/b": "2"}
    assert several.without("a").marks == {"certificate.certrenewal.dev/b": "2"}
    assert not several.without("a").without("b")


def test_the_strictest_decides() -> None:
    free = a_debt("a", until=NOON + 2 * DAY, must_by=NOON + DAY)
    strict = a_debt("b", until=NOON + DAY, by_hand=True, held=True, not_before=NOON + HOUR, must_by=NOON + 2 * HOUR)
    later = a_debt("c", until=NOON + 3 * DAY, not_before=NOON + 3 * HOUR)

    all_three = Owed((free, strict, later))

    assert all_three.held
    assert all_three.by_hand
    assert all_three.opening == NOON + 3 * HOUR
    assert all_three.must_by == NOON + 2 * HOUR
    assert all_three.ends == NOON + DAY


def test_an_end_that_is_not_known_may_be_now() -> None:
    assert Owed((a_debt("a", until=NOON), a_debt("b"))).ends is None


# -- from objects --------------------------------------------------------------------------------------------------


@pytest.fixture
async def fleet() -> Fleet:
    """Deployment web with two certificates."""
    fleet = Fleet()
    for name in ("a", "b"):
        fleet.certificate(name)
    fleet.deploy("web", "a", "b")
    for name in ("a", "b"):
        fleet.look(Key(NAMESPACE, name))
    return fleet


def found(fleet: Fleet, *, refused: dict[WorkloadRef, str] | None = None) -> Owed:
    workload = fleet.cache.workload(NAMESPACE, WEB)
    assert workload is not None
    return owed(fleet.cache, workload, refused=refused or {}, may_signal=True, now=fleet.clock.now)


def test_who_runs_all_its_certificates_is_owed_nothing(fleet: Fleet) -> None:
    assert not found(fleet)


def test_every_certificate_that_it_does_not_run_is_owed(fleet: Fleet) -> None:
    fleet.renew("a")
    assert found(fleet).marks == {"certificate.certrenewal.dev/a": fleet.mark("a")}

    fleet.renew("b")
    assert set(found(fleet).marks) == {"certificate.certrenewal.dev/a", "certificate.certrenewal.dev/b"}
    assert found(fleet).ends == NOON + DAY
    assert found(fleet).must_by == NOON + DAY - HOUR


def test_what_it_is_marked_with_is_paid(fleet: Fleet) -> None:
    fleet.renew("a")
    workload = fleet.cache.workload(NAMESPACE, WEB)
    assert workload is not None

    marked = replace(workload, marks=found(fleet).marks)
    fleet.cache.see_workload(marked)

    assert not found(fleet)


def test_one_that_cannot_be_read_keeps_no_other_back(fleet: Fleet) -> None:
    for name in ("a", "b"):
        fleet.renew(name)
    renewal = fleet.cache.renewals[Key(NAMESPACE, "a")]
    fleet.cache.put_renewal(replace(renewal, spec={**renewal.spec, "restart": "Sometimes"}))

    assert set(found(fleet).marks) == {"certificate.certrenewal.dev/b"}


def test_what_was_refused_is_owed_once_it_is_tried_again(fleet: Fleet) -> None:
    fleet.renew("a")

    assert not found(fleet, refused={WEB: "no"})
    assert found(fleet)


@pytest.mark.parametrize(
    ("reason", "by_hand"),
    [
        (Reason.RENEWAL_DUE, False),
        (Reason.SIBLING_RENEWED, False),
        (Reason.RENEWAL_REQUESTED, True),
        (Reason.NAMES_CHANGED, True),
        (Reason.MISSING, True),
    ],
)
def test_who_asked_may_be_about_to_ask_for_more(fleet: Fleet, reason: Reason, by_hand: bool) -> None:
    fleet.renew("a", by=reason)

    assert found(fleet).by_hand is by_hand


def test_before_the_first_certificate_nothing_is_owed(fleet: Fleet) -> None:
    current = current_of({}, parse_spec("a", {}), refused={})
    waits = Standing(ref=WEB, state=State.PENDING, runs=Ran(""))

    assert debt_of(fleet.cache.renewals[Key(NAMESPACE, "a")], waits, current) is None


@pytest.mark.parametrize("state", [state for state in State if state is not State.PENDING])
def test_only_who_waits_is_owed(fleet: Fleet, state: State) -> None:
    fleet.renew("a")
    renewal = fleet.cache.renewals[Key(NAMESPACE, "a")]
    current = current_of(renewal.status, parse_spec("a", renewal.spec), refused={})

    assert debt_of(renewal, Standing(ref=WEB, state=state, runs=Ran("old")), current) is None
    assert debt_of(renewal, Standing(ref=WEB, state=State.PENDING, runs=Ran("old")), current) is not None


def test_the_current_certificate_is_that_of_the_status(fleet: Fleet) -> None:
    renewal = fleet.cache.renewals[Key(NAMESPACE, "a")]
    spec = parse_spec("a", {**renewal.spec, "restartWindow": "0 2 * * * for 4h"})

    current = current_of(renewal.status, spec, refused={})

    assert current.runs == Ran(fleet.mark("a"), NOON + DAY)
    assert (current.secret, current.lifetime, current.window) == ("a", DAY, spec.restart_window)
