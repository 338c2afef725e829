"""Guards: a hook is owed each certificate of ours once, a failed one comes back ever more rarely, and status says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.domain.deliveries import (
    Delivery,
    State,
    answered,
    describe,
    due,
    hooks_condition,
    own_mark,
    read_deliveries,
    retry_after,
    with_deliveries,
    with_news,
    without_deliveries,
)
from certrenewal.domain.hooks import After, Hook
from certrenewal.domain.reasons import Reason
from tests.unit.builders import NOON

PING = Hook(name="ping", url="https://a.example.com/")
LATE = Hook(name="late", url="https://a.example.com/", after=After.ROLLOUT)
SECOND = timedelta(seconds=1)
MARK = "ab" * 8


def a_status(*, found: bool = False, rolled_out: str = "True", **more: Any) -> Mapping[str, Any]:
    """A certificate that the operator obtained, unless it was ``found``."""
    return {
        "certificate": {"fingerprint": "ab" * 32},
        "history": [{"fingerprint": ("cd" if found else "ab") * 32}],
        "conditions": [{"type": "RolledOut", "status": rolled_out}],
        **more,
    }


def a_delivery(state: State = State.DELIVERED, **changes: Any) -> Delivery:
    facts: dict[str, Any] = {"hook": "ping", "mark": MARK, "generation": 1, "time": NOON, "attempts": 1, "state": state}
    return Delivery(**{**facts, **changes})


def when(delivery: Delivery | None, hook: Hook = PING, *, generation: int = 1, **status: Any) -> datetime | None:
    return due(hook, a_status(**status), delivery, generation=generation, now=NOON + 60 * SECOND)


NOW = NOON + 60 * SECOND


@pytest.mark.parametrize(
    ("delivery", "at"),
    [
        pytest.param(None, NOW, id="never tried"),
        pytest.param(a_delivery(), None, id="delivered"),
        pytest.param(a_delivery(generation=0), None, id="delivered, and the spec changed"),
        pytest.param(a_delivery(mark="cd" * 8), NOW, id="delivered, another certificate"),
        pytest.param(a_delivery(State.REFUSED), None, id="refused"),
        pytest.param(a_delivery(State.REFUSED, generation=0), NOW, id="refused, and the spec changed"),
        pytest.param(a_delivery(State.REFUSED, mark="cd" * 8), NOW, id="refused, another certificate"),
        pytest.param(a_delivery(State.FAILING, attempts=3), NOON + 5 * SECOND, id="failing"),
        pytest.param(a_delivery(State.FAILING, attempts=3, generation=0), NOW, id="failing, and the spec changed"),
        pytest.param(a_delivery(State.FAILING, attempts=3, mark="cd" * 8), NOW, id="failing, another certificate"),
        pytest.param(a_delivery(State.DENIED), NOW, id="denied"),
    ],
)
def test_a_hook_is_due_for_what_it_has_not_heard(delivery: Delivery | None, at: datetime | None) -> None:
    assert when(delivery) == at


def test_a_certificate_that_was_found_is_told_of_to_nobody() -> None:
    assert when(None, found=True) is None
    assert own_mark({"certificate": {"fingerprint": "ab" * 32}}) is None
    assert own_mark({}) is None


def test_after_rollout_waits_for_it() -> None:
    assert when(None, LATE, rolled_out="False") is None
    assert when(None, LATE, rolled_out="True") == NOW
    assert when(None, PING, rolled_out="False") == NOW


def test_retries_double_from_a_second_to_five_minutes() -> None:
    seconds = [retry_after(attempts).total_seconds() for attempts in (1, 2, 3, 4, 9, 10, 100_000)]

    assert seconds == [1, 2, 4, 8, 256, 300, 300]


@pytest.mark.parametrize(
    ("code", "state"),
    [
        *((code, State.DELIVERED) for code in (200, 201, 204, 299)),
        *((code, State.FAILING) for code in (301, 302, 307, 408, 425, 429, 500, 502, 503, 599, 100)),
        *((code, State.REFUSED) for code in (400, 401, 403, 404, 405, 409, 410, 422, 499)),
    ],
)
def test_only_2xx_is_a_yes_and_most_of_4xx_a_no(code: int, state: State) -> None:
    assert answered(code) is state


MOMENTS = st.integers(0, 10**6).map(lambda seconds: NOON + seconds * SECOND)
DELIVERIES = st.builds(
    Delivery,
    hook=st.sampled_from(["ping", "late"]),
    mark=st.sampled_from([MARK, "cd" * 8]),
    generation=st.integers(0, 3),
    time=MOMENTS,
    attempts=st.integers(1, 9),
    state=st.sampled_from(State),
    message=st.text(max_size=5),
)


@given(DELIVERIES)
def test_status_gives_back_what_it_was_given(delivery: Delivery) -> None:
    status = with_deliveries({}, (PING, LATE), {delivery.hook: delivery})

    assert read_deliveries(status) == {delivery.hook: delivery}


@given(DELIVERIES, DELIVERIES)
def test_what_was_delivered_stays_delivered(recorded: Delivery, new: Delivery) -> None:
    before = a_delivery(mark=recorded.mark, time=recorded.time)
    known = with_news({"ping": before}, {"ping": replace(new, hook="ping", mark=recorded.mark)})

    assert known["ping"] == before


def test_news_count_unless_status_knows_later_ones() -> None:
    old, new = a_delivery(State.FAILING), a_delivery(time=NOON + SECOND)

    assert with_news({"ping": old}, {"ping": new}) == {"ping": new}
    assert with_news({"ping": replace(old, time=NOON + 9 * SECOND)}, {"ping": new})["ping"].state is State.FAILING
    assert with_news({}, {"ping": new}) == {"ping": new}


def test_what_cannot_be_read_counts_as_never_tried() -> None:
    entries = [{"name": "a", "state": "Odd", "time": "2026-03-01T12:00:00Z"}, {"name": "b", "state": "Delivered"}]

    assert read_deliveries({"hooks": entries}) == {}


def test_hooks_that_are_no_longer_asked_for_leave_status() -> None:
    status = with_deliveries(a_status(), (PING, LATE), {"ping": a_delivery(), "late": a_delivery(hook="late")})

    assert [hook["name"] for hook in with_deliveries(status, (LATE,), read_deliveries(status))["hooks"]] == ["late"]
    assert "hooks" not in without_deliveries(status)
    assert describe([]) == []


@pytest.mark.parametrize(
    ("deliveries", "options", "status", "reason", "words"),
    [
        pytest.param([], {}, "False", Reason.HOOK_PENDING, "to be delivered: ping, late", id="pending"),
        pytest.param([a_delivery()], {"rolled_out": "False"}, "False", Reason.HOOK_PENDING,
                     "to be delivered: late (after the rollout)", id="waits for the rollout"),
        pytest.param([a_delivery(), a_delivery(hook="late")], {}, "True", Reason.DELIVERED, "ping, late heard", id="all"),
        pytest.param([a_delivery(), a_delivery(hook="late", mark="cd" * 8)], {}, "False", Reason.HOOK_PENDING,
                     "to be delivered: late", id="one of an older certificate"),
        pytest.param([a_delivery(State.FAILING, message="no answer")], {}, "False", Reason.HOOK_FAILING,
                     "ping: no answer", id="failing goes before pending"),
        pytest.param([a_delivery(State.REFUSED, message="403")], {}, "False", Reason.HOOK_FAILING, "ping: 403", id="refused"),
        pytest.param([a_delivery(State.FAILING, message="x"), a_delivery(State.DENIED, hook="late", message="add it")], {},
                     "False", Reason.HOOK_DENIED, "late: add it", id="denied goes first"),
        pytest.param([], {"found": True}, "True", Reason.DELIVERED, "did not obtain", id="found"),
    ],
)  # fmt: skip
def test_the_condition_tells_what_is_most_in_the_way(
    deliveries: list[Delivery], options: dict[str, Any], status: str, reason: Reason, words: str
) -> None:
    known = {delivery.hook: delivery for delivery in deliveries}
    condition = hooks_condition((PING, LATE), a_status(**options), known)

    assert (condition.type, condition.status, condition.reason) == ("HooksDelivered", status, reason)
    assert words in condition.message
