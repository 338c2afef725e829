"""Guards: what users read of a certificate is kept in pure steps, and only what changed is written (RFC 7386)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.domain.names import parse_names
from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import State
from certrenewal.domain.routes import Route
from certrenewal.domain.spec import WorkloadRef
from certrenewal.domain.status import (
    HISTORY,
    Condition,
    Ran,
    Recorded,
    Standing,
    Status,
    came_by_itself,
    condition_of,
    difference,
    follows_sibling,
    is_pending,
    moment_of,
    roots_in_use,
    timestamp,
    with_certificate,
    with_condition,
    with_failure,
    with_renewal,
    with_workloads,
    without,
)
from tests.unit.builders import DAY, NOON, WEB, a_leaf, names

MINUTE = timedelta(minutes=1)


def ready(status: str = "True", reason: Reason = Reason.READY, message: str = "", kind: str = "Ready") -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message)


# -- the patch -----------------------------------------------------------------------------------------------------


def merged(target: Any, patch: Any) -> Any:
    """MergePatch of RFC 7386 §2, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


# A status: fields that are words, numbers, lists of objects, or flat objects (certificate, failure, lastRenewal).
FIELDS = st.sampled_from(["certificate", "failure", "history", "renewalTime", "restarts", "x"])
SCALARS = st.booleans() | st.integers(-5, 5) | st.text(max_size=3)
LISTS = st.lists(SCALARS | st.dictionaries(FIELDS, SCALARS, max_size=2), max_size=3)
STATUSES = st.dictionaries(FIELDS, SCALARS | LISTS | st.dictionaries(FIELDS, SCALARS | LISTS, max_size=4), max_size=5)


@given(STATUSES, STATUSES)
def test_applying_the_difference_to_what_was_gives_what_is_wanted(before: Status, after: Status) -> None:
    assert merged(before, difference(before, after)) == after


@given(STATUSES)
def test_where_nothing_changed_nothing_is_written(status: Status) -> None:
    assert difference(status, json.loads(json.dumps(status))) == {}


@given(STATUSES, STATUSES)
def test_only_the_fields_that_changed_are_written(before: Status, after: Status) -> None:
    patch = difference(before, after)

    assert set(patch) == {key for key in {*before, *after} if before.get(key) != after.get(key)}


@given(STATUSES, STATUSES)
def test_a_patch_written_twice_is_written_once(before: Status, after: Status) -> None:
    patch = difference(before, after)

    assert merged(merged(before, patch), patch) == after


def test_a_member_that_went_away_is_named_in_the_patch() -> None:
    before = {"failure": {"count": 1, "nextAttempt": "soon"}, "restarts": "1/1"}

    assert difference(before, {"failure": {"count": 2}}) == {
        "failure": {"count": 2, "nextAttempt": None},
        "restarts": None,
    }


# -- conditions ----------------------------------------------------------------------------------------------------


def test_a_condition_says_all_that_kubernetes_asks_for() -> None:
    status = with_condition({}, ready("False", Reason.NAME_DENIED, "no rule"), generation=4, now=NOON)

    assert status == {
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "NameDenied",
                "message": "no rule",
                "lastTransitionTime": "2026-03-01T12:00:00Z",
                "observedGeneration": 4,
            }
        ],
        "observedGeneration": 4,
    }


@pytest.mark.parametrize(
    ("then", "moves"),
    [
        pytest.param(ready("True", Reason.READY, ""), False, id="the same"),
        pytest.param(ready("True", Reason.RENEWED, "again"), False, id="another reason and message"),
        pytest.param(ready("False", Reason.READY, ""), True, id="another status"),
        pytest.param(ready("Unknown", Reason.READY, ""), True, id="unknown"),
    ],
)
def test_the_transition_time_moves_only_with_the_status(then: Condition, moves: bool) -> None:
    before = with_condition({}, ready(), generation=1, now=NOON)

    after = with_condition(before, then, generation=2, now=NOON + MINUTE)

    entry = condition_of(after, "Ready")
    assert entry["lastTransitionTime"] == timestamp(NOON + MINUTE if moves else NOON)
    assert (entry["reason"], entry["message"], entry["observedGeneration"]) == (then.reason.value, then.message, 2)


def test_conditions_of_other_types_stay_as_they_are() -> None:
    first = with_condition({"restarts": "1/1"}, ready(kind="RolledOut"), generation=1, now=NOON)

    both = with_condition(first, ready("False"), generation=2, now=NOON + MINUTE)

    assert [c["type"] for c in both["conditions"]] == ["Ready", "RolledOut"]
    assert condition_of(both, "RolledOut") == condition_of(first, "RolledOut")
    assert both["restarts"] == "1/1"


def test_a_condition_that_is_not_there_is_empty() -> None:
    assert condition_of({}, "Ready") == {}
    assert condition_of({"conditions": None}, "Ready") == {}


def test_no_step_changes_the_status_it_was_given() -> None:
    """The cache holds the status that the API server knows: changing it would hide the difference."""
    before = with_condition({}, ready(), generation=1, now=NOON)
    before = with_renewal(before, a_leaf(), route=Route.SIGN, reason=Reason.MISSING, now=NOON)
    copy = json.loads(json.dumps(before))

    with_condition(before, ready("False"), generation=2, now=NOON)
    with_renewal(before, a_leaf(), route=Route.SIGN, reason=Reason.MISSING, now=NOON)
    with_failure(before, reason=Reason.AUTHORITY_REFUSED, message="", now=NOON, attempt_at=None)
    with_workloads(before, [])

    assert before == copy


# -- the certificate and its history -------------------------------------------------------------------------------


def test_the_certificate_at_hand_is_shown() -> None:
    status = with_certificate({}, a_leaf(), due=NOON + 15 * 60 * MINUTE, duration=DAY)

    assert status == {
        "certificate": {
            "serial": "4711",
            "fingerprint": "ab" * 32,
            "notBefore": "2026-03-01T12:00:00Z",
            "notAfter": "2026-03-02T12:00:00Z",
            "issuer": "CN=Intermediate",
            "names": ["web.shop.svc"],
            "duration": "24h",
        },
        "renewalTime": "2026-03-02T03:00:00Z",
    }


def test_a_duration_that_nobody_asked_for_is_not_shown() -> None:
    assert "duration" not in with_certificate({}, a_leaf(), due=NOON, duration=None)["certificate"]


def test_a_renewal_is_shown_as_the_last_and_in_the_history() -> None:
    status = with_renewal({}, a_leaf(), route=Route.RENEW_TOKEN, reason=Reason.RENEWAL_DUE, now=NOON)

    assert status["lastRenewal"] == {"time": "2026-03-01T12:00:00Z", "route": "RenewToken", "reason": "RenewalDue"}
    assert status["history"] == [
        {
            "time": "2026-03-01T12:00:00Z",
            "serial": "4711",
            "fingerprint": "ab" * 32,
            "route": "RenewToken",
            "reason": "RenewalDue",
            "notAfter": "2026-03-02T12:00:00Z",
        }
    ]


def test_routes_that_were_refused_before_are_told_with_the_cas_words() -> None:
    status = with_renewal(
        {},
        a_leaf(),
        route=Route.SIGN,
        reason=Reason.RENEWAL_DUE,
        now=NOON,
        refused=[(Route.RENEW_TOKEN, "not allowed"), (Route.RENEW_MTLS, "bad certificate")],
    )

    assert status["lastRenewal"]["refused"] == [
        {"route": "RenewToken", "message": "not allowed"},
        {"route": "RenewMTLS", "message": "bad certificate"},
    ]
    assert "refused" not in status["history"][0]


def test_the_history_holds_the_last_ten_the_newest_first() -> None:
    status: Status = {}
    for number in range(1, 13):
        status = with_renewal(
            status, a_leaf(serial=str(number)), route=Route.SIGN, reason=Reason.RENEWAL_DUE, now=NOON + number * MINUTE
        )

    assert HISTORY == 10
    assert [entry["serial"] for entry in status["history"]] == [str(number) for number in range(12, 2, -1)]
    assert status["lastRenewal"]["time"] == timestamp(NOON + 12 * MINUTE)


# -- roots --------------------------------------------------------------------------------------------------------


def rotated(*, rolled_out: bool) -> Status:
    """The status of a certificate under a new root, whose predecessor was under an old one."""
    status: Status = {}
    for root in ("old", "new"):
        status = with_certificate(status, a_leaf(), due=NOON, duration=None, root=root)
        status = with_renewal(status, a_leaf(), route=Route.SIGN, reason=Reason.RENEWAL_DUE, now=NOON, root=root)
    condition = Condition(
        type="RolledOut", status=str(rolled_out), reason=Reason.RESTART_PENDING, message="waiting for their restart"
    )
    return with_condition(status, condition, generation=1, now=NOON)


def test_a_root_is_in_use_until_every_workload_runs_a_certificate_of_another() -> None:
    assert roots_in_use(rotated(rolled_out=False), NOON) == {"old", "new"}
    assert roots_in_use(rotated(rolled_out=True), NOON) == {"new"}


def test_the_root_of_a_certificate_that_ended_is_not_in_use() -> None:
    assert roots_in_use(rotated(rolled_out=False), NOON + DAY) == set()
    assert roots_in_use({}, NOON) == set()


# -- failures ------------------------------------------------------------------------------------------------------


def test_failures_are_counted_since_the_first() -> None:
    once = with_failure({}, reason=Reason.AUTHORITY_UNREACHABLE, message="down", now=NOON, attempt_at=NOON + MINUTE)
    twice = with_failure(once, reason=Reason.AUTHORITY_REFUSED, message="no", now=NOON + MINUTE, attempt_at=None)

    assert once["failure"] == {
        "count": 1,
        "reason": "AuthorityUnreachable",
        "message": "down",
        "since": timestamp(NOON),
        "nextAttempt": timestamp(NOON + MINUTE),
    }
    assert twice["failure"] == {"count": 2, "reason": "AuthorityRefused", "message": "no", "since": timestamp(NOON)}


def test_after_a_success_failures_are_counted_anew() -> None:
    failing = with_failure({"restarts": "0/0"}, reason=Reason.CONFLICT, message="", now=NOON, attempt_at=None)

    fine = without(failing, "failure")

    assert fine == {"restarts": "0/0"}
    again = with_failure(fine, reason=Reason.CONFLICT, message="", now=NOON + DAY, attempt_at=None)
    assert (again["failure"]["count"], again["failure"]["since"]) == (1, timestamp(NOON + DAY))


# -- workloads -----------------------------------------------------------------------------------------------------


def a_standing(name: str, state: State, message: str = "", kind: str = "Deployment") -> Standing:
    return Standing(ref=WorkloadRef(kind, name), state=state, runs=Ran("ab" * 8), message=message)


@pytest.mark.parametrize(
    ("states", "column"),
    [
        pytest.param([], "0/0", id="nobody"),
        pytest.param([State.HEALTHY, State.HEALTHY], "2/2", id="all"),
        pytest.param([State.HEALTHY, State.PENDING, State.RESTARTING, State.FAILED], "1/4", id="one of four"),
        pytest.param([State.HEALTHY, State.SKIPPED], "1/1", id="who is skipped does not count"),
    ],
)
def test_the_restarts_column_counts_who_runs_healthy_with_the_certificate(states: list[State], column: str) -> None:
    standings = [a_standing(f"w{number}", state) for number, state in enumerate(states)]

    assert with_workloads({}, standings)["restarts"] == column


def test_workloads_are_listed_in_order_with_what_they_wait_for() -> None:
    standings = [
        a_standing("web", State.RESTARTING, "resume it"),
        a_standing("db", State.HEALTHY, kind="StatefulSet"),
        a_standing("api", State.SKIPPED),
    ]

    status = with_workloads({}, standings)

    assert status["workloads"] == [
        {"kind": "Deployment", "name": "api", "state": "Skipped", "fingerprint": "ab" * 8},
        {
            "kind": "Deployment",
            "name": "web",
            "state": "Restarting",
            "fingerprint": "ab" * 8,
            "message": "resume it",
        },
        {"kind": "StatefulSet", "name": "db", "state": "Healthy", "fingerprint": "ab" * 8},
    ]


# -- read back -----------------------------------------------------------------------------------------------------


def test_what_was_written_is_read_back() -> None:
    leaf = a_leaf(names=names("web.shop", "10.1.2.3", "ann@example.com", "spiffe://td/x"))
    status = with_certificate({"renewNow": "2026"}, leaf, due=NOON, duration=DAY)
    status = with_failure(status, reason=Reason.CONFLICT, message="", now=NOON, attempt_at=None)
    status = with_workloads(status, [a_standing("web", State.PENDING)])

    recorded = Recorded(json.loads(json.dumps(status)))

    assert recorded.fingerprint == leaf.fingerprint
    assert recorded.names == leaf.names
    assert recorded.duration == DAY
    assert recorded.failures == 1
    assert recorded.renew_now == "2026"
    assert recorded.workloads == {WEB: Ran("ab" * 8)}


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({}, id="empty"),
        pytest.param({"certificate": None, "failure": None, "workloads": None}, id="nulls"),
        pytest.param({"certificate": {}}, id="a certificate of which nothing is known"),
    ],
)
def test_an_empty_status_records_nothing(status: Status) -> None:
    recorded = Recorded(status)

    assert (recorded.fingerprint, recorded.names, recorded.duration) == (None, (), None)
    assert (recorded.failures, recorded.renew_now, recorded.workloads) == (0, "", {})


@pytest.mark.parametrize("part", [{"names": ["a..b"]}, {"duration": "for ever"}], ids=str)
def test_what_cannot_be_read_back_counts_as_absent(part: dict[str, Any]) -> None:
    recorded = Recorded({"certificate": {"fingerprint": "ab", **part}})

    assert (recorded.fingerprint, recorded.names, recorded.duration) == ("ab", (), None)


def test_times_are_written_in_utc_with_whole_seconds() -> None:
    berlin = timezone(timedelta(hours=1))

    assert timestamp(datetime(2026, 3, 1, 13, 0, 0, 999_999, berlin)) == "2026-03-01T12:00:00Z"


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - see timezones
)
def test_a_time_is_read_back_to_the_second(moment: datetime) -> None:
    assert moment_of(timestamp(moment)) == moment.replace(microsecond=0)


@pytest.mark.parametrize("text", [None, "", "soon", "2026-13-01T00:00:00Z"])
def test_a_time_that_is_absent_or_unreadable_is_none(text: str | None) -> None:
    assert moment_of(text) is None


def test_names_are_written_as_users_write_them() -> None:
    leaf = a_leaf(names=names("*.example.com", "2001:db8::1"))

    shown = with_certificate({}, leaf, due=NOON, duration=None)["certificate"]["names"]

    assert parse_names(shown) == leaf.names


# -- what a workload ran -------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Deployment", "StatefulSet"]),
            st.sampled_from(["web", "db", "api"]),
            st.sampled_from(list(State)),
            st.builds(
                Ran,
                st.sampled_from(["", "ab" * 8]),
                st.none() | st.integers(0, 10**6).map(lambda seconds: NOON + timedelta(seconds=seconds)),
                st.none() | st.integers(0, 10**6).map(lambda seconds: NOON - timedelta(seconds=seconds)),
            ),
        ),
        unique_by=lambda entry: entry[:2],
    )
)
def test_what_each_workload_ran_and_since_when_is_read_back(entries: list[tuple[str, str, State, Ran]]) -> None:
    """The queue is rebuilt from this after a kill: urgency, cool-down and patience."""
    standings = [
        Standing(ref=WorkloadRef(kind, name), state=state, runs=runs, message="") for kind, name, state, runs in entries
    ]

    recorded = Recorded(json.loads(json.dumps(with_workloads({}, standings))))

    assert recorded.workloads == {found.ref: found.runs for found in standings}


def test_users_see_when_a_workload_was_restarted_and_until_when_it_can_go_on() -> None:
    runs = Ran("ab" * 8, NOON + DAY, NOON)

    (entry,) = with_workloads({}, [replace(a_standing("web", State.PENDING), runs=runs)])["workloads"]

    assert entry == {
        "kind": "Deployment",
        "name": "web",
        "state": "Pending",
        "fingerprint": "ab" * 8,
        "notAfter": "2026-03-02T12:00:00Z",
        "restartedAt": "2026-03-01T12:00:00Z",
    }


@pytest.mark.parametrize("state", list(State))
def test_a_workload_is_pending_where_its_state_says_so(state: State) -> None:
    status = with_workloads({}, [a_standing("web", state), a_standing("other", State.PENDING)])

    assert is_pending(status, WEB) is (state is State.PENDING)
    assert not is_pending(status, WorkloadRef("StatefulSet", "other"))
    assert not is_pending({}, WEB)


@pytest.mark.parametrize(
    ("reason", "by_itself"),
    [
        (Reason.RENEWAL_DUE, True),
        (Reason.SIBLING_RENEWED, True),
        (Reason.RENEWAL_REQUESTED, False),
        (Reason.NAMES_CHANGED, False),
        (Reason.MISSING, False),
    ],
)
def test_a_certificate_came_by_itself_where_it_was_due(reason: Reason, by_itself: bool) -> None:
    status = with_renewal({}, a_leaf(), route=Route.SIGN, reason=reason, now=NOON)

    assert came_by_itself(with_certificate(status, a_leaf(), due=NOON, duration=None)) is by_itself


def test_a_certificate_that_somebody_put_there_did_not_come_by_itself() -> None:
    status = with_renewal({}, a_leaf(), route=Route.SIGN, reason=Reason.RENEWAL_DUE, now=NOON)

    assert not came_by_itself(with_certificate(status, a_leaf(fingerprint="cd" * 32), due=NOON, duration=None))
    assert not came_by_itself({})


@pytest.mark.parametrize(
    ("now", "share", "follows"),
    [
        pytest.param(NOON + 15 * 60 * MINUTE, 0.1, True, id="within its share"),
        pytest.param(NOON + 13 * 60 * MINUTE, 0.1, False, id="before"),
        pytest.param(NOON + 13 * 60 * MINUTE, 0.2, True, id="a larger share"),
        pytest.param(NOON + 15 * 60 * MINUTE, 0.0, False, id="no share"),
    ],
)
def test_a_certificate_follows_a_sibling_within_its_share(now: datetime, share: float, follows: bool) -> None:
    status = with_certificate({}, a_leaf(), due=NOON + 16 * 60 * MINUTE, duration=None)

    assert follows_sibling(status, share, now) is follows
    failing = with_failure(status, reason=Reason.AUTHORITY_REFUSED, message="", now=NOON, attempt_at=None)
    assert not follows_sibling(failing, share, now)


@pytest.mark.parametrize("gone", ["certificate", "renewalTime"])
def test_a_certificate_of_which_little_is_known_follows_nobody(gone: str) -> None:
    status = with_certificate({}, a_leaf(), due=NOON, duration=None)

    assert not follows_sibling({key: value for key, value in status.items() if key != gone}, 0.1, NOON + DAY)
