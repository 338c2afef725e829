"""Guards: renewals come before two thirds of the life, spread and repeatable; retries within a minute (contract §5)."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from certrenewal.domain.spec import Percent
from certrenewal.domain.timing import Plan, may_follow, plan_renewal, retry_delay, silence, spread
from tests.unit.builders import DAY, NOON

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)

STARTS = st.datetimes(datetime(2020, 1, 1), datetime(2060, 1, 1)).map(  # noqa: DTZ001 - given its zone right here
    lambda moment: moment.replace(microsecond=0, tzinfo=NOON.tzinfo)
)
LIFETIMES = st.integers(60, 10 * 365 * 24 * 3600).map(lambda seconds: timedelta(seconds=seconds))
WORDS = st.text(min_size=1, max_size=20)
SERIALS = st.integers(1, 2**160).map(str)


def plan(
    lifetime: timedelta = DAY,
    *,
    start: datetime = NOON,
    before: timedelta | Percent | None = None,
    uid: str = "6f1c",
    serial: str = "4711",
) -> Plan:
    return plan_renewal(start, start + lifetime, renew_before=before, uid=uid, serial=serial)


# -- the two-thirds rule -------------------------------------------------------------------------------------------


@given(STARTS, LIFETIMES, WORDS, SERIALS)
def test_by_default_renewal_comes_between_61_percent_and_two_thirds(
    start: datetime, lifetime: timedelta, uid: str, serial: str
) -> None:
    due = plan(lifetime, start=start, uid=uid, serial=serial).due

    assert due < start + lifetime * 2 / 3
    assert due >= start + lifetime * 0.61 - SECOND
    assert due.microsecond == 0


@given(STARTS, LIFETIMES, st.none() | LIFETIMES | st.integers(1, 99).map(Percent), WORDS, SERIALS)
def test_the_same_certificate_is_always_due_at_the_same_time(
    start: datetime, lifetime: timedelta, before: timedelta | Percent | None, uid: str, serial: str
) -> None:
    def planned() -> Plan:
        return plan(lifetime, start=start, before=before, uid=uid, serial=serial)

    assert planned() == planned()
    assert start <= planned().due < start + lifetime


@given(WORDS, SERIALS)
def test_the_spread_is_a_share(uid: str, serial: str) -> None:
    assert 0 <= spread(uid, serial) < 1


def test_the_formula_is_the_contracts() -> None:
    u = spread("6f1c", "4711")

    assert plan().due == (NOON + DAY * (2 / 3 - u / 20)).replace(microsecond=0)
    assert plan(before=4 * HOUR).due == (NOON + DAY - 4 * HOUR - u * 4 * HOUR / 20).replace(microsecond=0)


def test_the_spread_never_changes_between_releases() -> None:
    """A new release must not move the renewal of every certificate at once."""
    assert spread("6f1c", "4711") == pytest.approx(0.427988201026)


def test_certificates_issued_together_are_renewed_apart() -> None:
    by_serial = [spread("6f1c", str(serial)) for serial in range(1000)]
    by_uid = [spread(str(uid), "4711") for uid in range(1000)]

    for shares in (by_serial, by_uid):
        tenths = [sum(tenth <= share * 10 < tenth + 1 for share in shares) for tenth in range(10)]
        assert min(tenths) > 50
        assert max(tenths) < 150


def test_the_next_certificate_of_the_same_object_is_due_at_another_point() -> None:
    assert plan(serial="4711").due != plan(serial="4712").due


# -- renewBefore ---------------------------------------------------------------------------------------------------


@given(LIFETIMES, LIFETIMES, SERIALS)
def test_renew_before_is_kept_within_a_twentieth(lifetime: timedelta, before: timedelta, serial: str) -> None:
    assume(before * 1.05 + SECOND < lifetime)

    planned = plan(lifetime, before=before, serial=serial)

    assert planned.ignored is None
    left = NOON + lifetime - planned.due
    assert before <= left <= before * 1.05 + SECOND


@given(st.integers(1, 94), st.integers(60, 10_000).map(lambda minutes: timedelta(minutes=minutes)), SERIALS)
def test_a_share_of_the_life_is_kept_within_a_twentieth(share: int, lifetime: timedelta, serial: str) -> None:
    planned = plan(lifetime, before=Percent(share), serial=serial)

    assert planned.ignored is None
    left = NOON + lifetime - planned.due
    assert lifetime * share / 100 - timedelta(microseconds=1) <= left <= lifetime * share / 100 * 1.05 + SECOND


@given(LIFETIMES, st.integers(0, 10**8), SERIALS)
def test_where_renew_before_does_not_fit_the_default_holds_and_says_so(
    lifetime: timedelta, more: int, serial: str
) -> None:
    before = lifetime + timedelta(seconds=more)

    planned = plan(lifetime, before=before, serial=serial)

    assert planned.due == plan(lifetime, serial=serial).due
    assert planned.ignored is not None
    assert str(before) in planned.ignored
    assert str(lifetime) in planned.ignored


# -- retries -------------------------------------------------------------------------------------------------------

REMAINING = st.timedeltas(min_value=timedelta(days=-1), max_value=timedelta(days=3650)) | st.timedeltas(
    min_value=timedelta(0), max_value=timedelta(minutes=30)
)
FAILURES = st.integers(1, 10**6)


@given(FAILURES, REMAINING)
@example(1, timedelta(0))
@example(10**6, timedelta(microseconds=1))
def test_a_failed_attempt_is_tried_again_within_a_minute(failures: int, remaining: timedelta) -> None:
    delay = retry_delay(failures, remaining)

    assert timedelta(0) < delay <= timedelta(seconds=60)


@given(FAILURES, REMAINING.filter(lambda remaining: remaining > timedelta(0)))
def test_a_retry_takes_no_more_than_a_twentieth_of_the_life_that_is_left(failures: int, remaining: timedelta) -> None:
    assert retry_delay(failures, remaining) <= max(remaining / 20, SECOND)


@given(FAILURES, REMAINING)
def test_retries_never_come_faster_than_each_second(failures: int, remaining: timedelta) -> None:
    assert retry_delay(failures, remaining) >= SECOND


@given(FAILURES, REMAINING)
def test_each_retry_waits_at_least_as_long_as_the_one_before(failures: int, remaining: timedelta) -> None:
    assert retry_delay(failures, remaining) <= retry_delay(failures + 1, remaining)


def test_retries_double_from_a_second_to_a_minute() -> None:
    waits = [retry_delay(failures, DAY).total_seconds() for failures in range(1, 9)]

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_last_attempts_come_each_second() -> None:
    waits = [retry_delay(9, timedelta(seconds=left)).total_seconds() for left in (1200, 600, 60, 20, 5, 1)]

    assert waits == [60, 30, 3, 1, 1, 1]


def test_an_expired_certificate_waits_like_one_with_time_left() -> None:
    """There is nothing to hurry for any more, and a dead CA must not be hit each second by all that expired."""
    assert retry_delay(8, -DAY) == timedelta(seconds=60)


@given(FAILURES, REMAINING, st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=2)))
def test_the_ca_can_only_make_it_later(failures: int, remaining: timedelta, asked: timedelta) -> None:
    delay = retry_delay(failures, remaining, asked=asked)

    assert delay == max(asked, retry_delay(failures, remaining))


@pytest.mark.parametrize(
    ("lifetime", "backdate", "renew_before"),
    [
        (timedelta(minutes=6), timedelta(minutes=1), timedelta(minutes=5)),
        (timedelta(seconds=90), timedelta(minutes=1), None),
        (timedelta(hours=24), timedelta(minutes=1), timedelta(hours=23, minutes=59)),
    ],
    ids=["renewBefore as long as the rest", "backdated by most of its life", "a day"],
)
def test_a_certificate_just_obtained_is_used_for_a_while(
    lifetime: timedelta, backdate: timedelta, renew_before: timedelta | None
) -> None:
    begin = NOON
    issued = begin + backdate

    for serial in range(200):
        plan = plan_renewal(
            begin, begin + lifetime, renew_before=renew_before, uid="u", serial=str(serial), obtained=issued
        )
        assert issued + timedelta(seconds=8) < plan.due < begin + lifetime


@pytest.mark.parametrize(
    ("remaining", "expected"),
    [(-DAY, 3600), (timedelta(0), 3600), (2 * DAY, 3600), (timedelta(hours=2), 1800), (timedelta(seconds=20), 10)],
)
def test_a_clear_no_is_asked_about_again_in_an_hour_or_before_a_certificate_is_lost(
    remaining: timedelta, expected: int
) -> None:
    assert silence(remaining).total_seconds() == expected


def test_few_attempts_follow_a_clear_no_until_the_certificate_ends() -> None:
    remaining, attempts = DAY, 0
    while remaining > timedelta(0):
        remaining, attempts = remaining - silence(remaining), attempts + 1

    assert attempts < 60


# -- together with a sibling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "passed", "follows"),
    [
        pytest.param(0.1, 0.5, False, id="half of its life"),
        pytest.param(0.1, 0.566, False, id="more than a tenth before it is due"),
        pytest.param(0.1, 0.567, True, id="less than a tenth before it is due"),
        pytest.param(0.1, 0.9, True, id="overdue"),
        pytest.param(0.0, 0.666, False, id="no share"),
        pytest.param(0.0, 0.667, True, id="no share, due"),
        pytest.param(0.5, 0.2, False, id="half of its life, in its first quarter"),
        pytest.param(0.5, 0.26, True, id="half of its life, after its first quarter"),
    ],
)
def test_a_certificate_follows_within_a_share_of_its_life(share: float, passed: float, follows: bool) -> None:
    due = NOON + DAY * 2 / 3

    assert may_follow(NOON, NOON + DAY, due, share=share, now=NOON + DAY * passed) is follows


SHARES = st.integers(0, 50).map(lambda percent: percent / 100)


@given(STARTS, LIFETIMES, st.none() | LIFETIMES | st.integers(1, 99).map(Percent), SERIALS, SHARES, st.floats(0, 0.24))
def test_siblings_never_chase_each_other(
    start: datetime,
    lifetime: timedelta,
    before: timedelta | Percent | None,
    serial: str,
    share: float,
    passed: float,
) -> None:
    """Whoever was just renewed follows nobody for a quarter of its life, however soon it is due."""
    planned = plan_renewal(start, start + lifetime, renew_before=before, uid="u", serial=serial, obtained=start)

    assert not may_follow(start, start + lifetime, planned.due, share=share, now=start + lifetime * passed)


@given(LIFETIMES, SHARES, SHARES, st.floats(0, 1))
def test_a_larger_share_only_adds_followers(lifetime: timedelta, one: float, other: float, passed: float) -> None:
    end, now = NOON + lifetime, NOON + lifetime * passed
    due = plan(lifetime).due

    few = may_follow(NOON, end, due, share=min(one, other), now=now)

    assert not few or may_follow(NOON, end, due, share=max(one, other), now=now)
