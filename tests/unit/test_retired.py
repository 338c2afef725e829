"""Guards: what is out of use is revoked, not too early, and not what nobody asked for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from certrenewal.domain.reasons import Reason
from certrenewal.domain.retired import Retired, postponed, read_retired, retire, with_retired
from certrenewal.domain.status import Condition, Status, with_certificate, with_condition
from tests.unit.builders import DAY, NOON, a_leaf

GRACE = timedelta(minutes=5)
MINUTE = timedelta(minutes=1)


def a_status(serial: str = "1", *, rolled_out: bool = True, moved: Any = NOON) -> Status:
    """The status of a certificate, with the moment when its rollout became what it is."""
    status = with_certificate({}, a_leaf(serial=serial), due=NOON, duration=None)
    condition = Condition(type="RolledOut", status=str(rolled_out), reason=Reason.ROLLED_OUT, message="")
    return with_condition(status, condition, generation=1, now=moved)


def test_a_certificate_that_was_replaced_is_retired_once() -> None:
    once = retire(a_status("1"), a_status("2"), at_once=False, now=NOON)
    again = retire(a_status("1"), once, at_once=False, now=NOON + MINUTE)

    assert [one.serial for one in read_retired(once)] == ["1"]
    assert read_retired(retire(a_status("2"), once, at_once=False, now=NOON)) == read_retired(once)
    assert [one.serial for one in read_retired(again)] == ["1"]
    assert retire({}, a_status("1"), at_once=False, now=NOON) == a_status("1")


@pytest.mark.parametrize(
    ("status", "at_once", "expected"),
    [
        pytest.param(a_status(rolled_out=False), False, None, id="a workload may still run it"),
        pytest.param(a_status(moved=NOON + MINUTE), False, NOON + MINUTE + GRACE, id="after the rollout"),
        pytest.param(a_status(moved=NOON - DAY), False, NOON + GRACE, id="nothing had to be rolled out"),
        pytest.param({}, False, None, id="nothing is known"),
        pytest.param(a_status(rolled_out=False), True, NOON, id="a key in other hands"),
    ],
)
def test_when_it_is_revoked(status: Status, at_once: bool, expected: Any) -> None:
    one = Retired(serial="1", not_after=NOON + DAY, since=NOON, at_once=at_once)

    assert one.due(status, GRACE) == expected


def test_a_failed_attempt_is_repeated_later() -> None:
    one = Retired(serial="1", not_after=NOON + DAY, since=NOON, at_once=True)
    later = postponed(one, message="no answer", until=NOON + MINUTE)

    assert later.due({}, GRACE) == NOON + MINUTE
    assert read_retired(with_retired({}, [later])) == (later,)


def test_what_cannot_be_read_counts_as_absent() -> None:
    assert read_retired({"retired": [{"serial": "1"}, {"serial": "0x1", "since": "2026-03-01T12:00:00Z"}]}) == ()
    assert "retired" not in with_retired({"retired": [1]}, [])
