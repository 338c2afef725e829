"""Guards: restarts are spread over the minute, a quarter of a minute's worth at once, and what did not go costs nothing."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.domain.budget import Bucket
from tests.unit.builders import DAY, NOON

MINUTE = timedelta(minutes=1)
RATES = st.integers(1, 6000)
WAITS = st.lists(st.floats(0, 300, allow_nan=False).map(lambda seconds: timedelta(seconds=seconds)), max_size=60)


def passed(bucket: Bucket, now: datetime) -> int:
    """How many are let through at this moment."""
    count = 0
    while bucket.free_at(now) <= now and count < 10_000:
        bucket.take(now)
        count += 1
    return count


@pytest.mark.parametrize(("per_minute", "at_once"), [(1, 1), (4, 1), (5, 2), (6, 2), (60, 15), (6000, 1500)])
def test_a_quarter_of_a_minutes_worth_goes_at_once(per_minute: int, at_once: int) -> None:
    bucket = Bucket(per_minute)

    assert passed(bucket, NOON) == at_once
    assert passed(bucket, NOON + DAY) == at_once, "and no more after a long silence"


@given(RATES, WAITS)
def test_over_any_time_no_more_go_than_it_fills_beside_what_it_holds(per_minute: int, waits: list[timedelta]) -> None:
    bucket, now, count = Bucket(per_minute), NOON, 0
    for wait in waits:
        now += wait
        while bucket.free_at(now) <= now and count < 500:
            bucket.take(now)
            count += 1

    minutes = (now - NOON) / MINUTE
    assert count <= math.ceil(per_minute / 4) + minutes * per_minute + 1e-6


@given(RATES)
def test_who_waits_until_it_is_free_may_go_then_and_not_before(per_minute: int) -> None:
    bucket = Bucket(per_minute)
    passed(bucket, NOON)

    free = bucket.free_at(NOON)

    assert NOON < free <= NOON + MINUTE / per_minute + timedelta(microseconds=1)
    assert bucket.free_at(free - timedelta(microseconds=1)) == free
    assert bucket.free_at(free) == free


@given(RATES, st.integers(1, 20))
def test_who_could_not_wait_is_paid_for_by_those_who_can(per_minute: int, urgent: int) -> None:
    bucket, late = Bucket(per_minute), Bucket(per_minute)
    for each in (bucket, late):
        passed(each, NOON)
    for _ in range(urgent):
        late.take(NOON)

    assert late.free_at(NOON) - bucket.free_at(NOON) == urgent * (MINUTE / per_minute)


@given(RATES, st.integers(1, 50))
def test_what_is_given_back_was_never_taken(per_minute: int, failures: int) -> None:
    """Restarts that are refused again and again must not use up what others could have."""
    bucket, now = Bucket(per_minute), NOON
    for _ in range(failures):
        bucket.take(now)
        bucket.give_back()

    assert passed(bucket, now) == math.ceil(per_minute / 4)


def test_nought_lets_everything_through_whatever_the_clock_does() -> None:
    bucket = Bucket(0)

    for now in (NOON, NOON, NOON - DAY, NOON + DAY):
        bucket.take(now)
        bucket.give_back()
        bucket.take(now)
        assert bucket.free_at(now) == now
