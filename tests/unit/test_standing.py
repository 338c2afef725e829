"""Guards: who is owed a restart, worked out from objects alone, so that a kill at any point owes nobody twice or never.

The certificate in the Secret is ``NEW`` throughout, the one before it ``OLD``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import State, Turn, Workload, mark, mark_key
from certrenewal.domain.spec import Restart, WorkloadRef
from certrenewal.domain.standing import LONGEST_WORDS, PATIENCE, Current, next_change, rolled_out, stand
from certrenewal.domain.status import Condition, Ran, Recorded, Standing, timestamp, with_workloads
from certrenewal.domain.window import Window
from tests.unit.builders import DAY, NOON, WEB, a_workload

OLD, NEW, OTHER = "01" * 32, "fe" * 32, "77" * 32

NOTHING = object()


def recorded(fingerprint: str | None, web: Any = NOTHING) -> Recorded:
    """What the last status says: which certificate the Secret held, and which one the workload ran."""
    return told(fingerprint, {} if web is NOTHING else {WEB: Ran(mark(web) if web else "")})


def told(fingerprint: str | None, runs: Mapping[WorkloadRef, Ran]) -> Recorded:
    """The same of any workloads."""
    standings = [Standing(ref=ref, state=State.HEALTHY, runs=ran) for ref, ran in runs.items()]
    return Recorded(with_workloads({"certificate": {"fingerprint": fingerprint}}, standings))


def marked(fingerprint: str | None, **changes: Any) -> Workload:
    """The workload with a mark on its pod template."""
    marks = {mark_key("web-tls"): mark(fingerprint)} if fingerprint else {}
    return a_workload(marks=marks, **changes)


def standing(
    workload: Workload,
    last: Recorded,
    *,
    fingerprint: str | None = NEW,
    restart: Restart = Restart(),  # noqa: B008 - frozen
    fresh: bool = False,
) -> Standing:
    (one,) = stand([workload], a_certificate(fingerprint, restart=restart, first=fresh), last, NOON)
    return one


def a_certificate(fingerprint: str | None = NEW, **changes: Any) -> Current:
    """The certificate of a day that the Secret holds."""
    runs = Ran(mark(fingerprint), NOON + DAY) if fingerprint else Ran("")
    return Current(**{"secret": "web-tls", "runs": runs, "lifetime": DAY, **changes})


@pytest.mark.parametrize(
    ("template", "last", "fresh", "state"),
    [
        # The course of a renewal, looked at after a kill at each point of it.
        pytest.param(OLD, recorded(OLD, OLD), False, State.PENDING, id="killed after the Secret was written"),
        pytest.param(OLD, recorded(NEW, OLD), False, State.PENDING, id="killed after the status was written"),
        pytest.param(NEW, recorded(NEW, OLD), False, State.HEALTHY, id="killed after the mark was written"),
        pytest.param(NEW, recorded(OLD, OLD), False, State.HEALTHY, id="marked by somebody who wrote no status"),
        pytest.param(NEW, recorded(NEW, NEW), False, State.HEALTHY, id="all written"),
        # Secret renewed twice before a workload's turn came.
        pytest.param(None, recorded(OTHER, OLD), False, State.PENDING, id="two certificates behind"),
        # The template lost its mark, or has an older one: a rollback or a fresh `kubectl apply`.
        pytest.param(None, recorded(NEW, NEW), False, State.HEALTHY, id="mark taken away"),
        pytest.param(OLD, recorded(NEW, NEW), False, State.HEALTHY, id="rolled back to the template before"),
        pytest.param(None, recorded(NEW, OLD), False, State.PENDING, id="mark taken away while owed a restart"),
        pytest.param(NEW, recorded(OTHER, OTHER), False, State.HEALTHY, id="rolled back to what the Secret holds"),
        # A workload that the last status does not know.
        pytest.param(None, recorded(NEW), False, State.HEALTHY, id="new workload: it began with this certificate"),
        pytest.param(
            None, recorded(OLD), False, State.PENDING, id="new workload: it may have begun with the one before"
        ),
        pytest.param(NEW, recorded(OLD), False, State.HEALTHY, id="new workload with the mark in its manifest"),
        # No status at all.
        pytest.param(None, recorded(None), False, State.HEALTHY, id="adopted: it ran before the operator came"),
        pytest.param(None, recorded(None), True, State.PENDING, id="first certificate: it began without"),
        pytest.param(NEW, recorded(None), True, State.HEALTHY, id="first certificate, already restarted"),
        pytest.param(None, recorded(None, ""), False, State.PENDING, id="first certificate, killed after the Secret"),
        pytest.param(None, recorded(NEW, ""), False, State.PENDING, id="first certificate, killed after the status"),
        pytest.param(NEW, recorded(NEW, ""), False, State.HEALTHY, id="first certificate, killed after the mark"),
    ],
)
def test_who_is_owed_a_restart(template: str | None, last: Recorded, fresh: bool, state: State) -> None:
    found = standing(marked(template), last, fresh=fresh)

    assert found.state is state
    assert (found.runs.fingerprint == mark(NEW)) == (state is State.HEALTHY)


def test_what_is_pending_tells_what_runs_meanwhile() -> None:
    assert standing(marked(OLD), recorded(OLD, OLD)).runs.fingerprint == mark(OLD)
    assert standing(marked(None), recorded(None, "")).runs.fingerprint == ""


def test_a_mark_for_another_secret_says_nothing() -> None:
    workload = a_workload(marks={mark_key("other-tls"): mark(NEW)})

    assert standing(workload, recorded(OLD, OLD)).state is State.PENDING


def test_before_the_first_certificate_everybody_waits() -> None:
    found = standing(marked(None), recorded(None), fingerprint=None)

    assert (found.state, found.runs.fingerprint) == (State.PENDING, "")


@given(
    template=st.sampled_from([None, OLD, NEW, OTHER]),
    last=st.sampled_from([None, OLD, NEW, OTHER]),
    ran=st.sampled_from([NOTHING, "", OLD, NEW, OTHER]),
    fresh=st.booleans(),
)
def test_a_restart_is_owed_once(template: str | None, last: str | None, ran: Any, fresh: bool) -> None:
    """Whatever was known before: with the mark written nothing is owed any more, and the next look agrees."""
    before = standing(marked(template), recorded(last, ran), fresh=fresh)
    template = NEW if before.state is State.PENDING else template

    after = standing(marked(template), recorded(last, ran), fresh=fresh)
    next_look = standing(marked(template), told(NEW, {WEB: after.runs}))

    assert after.state is State.HEALTHY
    assert next_look == after


@pytest.mark.parametrize(
    ("changes", "restart"),
    [
        pytest.param({"opted_out": True}, Restart("Auto"), id="the workload opted out"),
        pytest.param({}, Restart("Never"), id="restart Never"),
        pytest.param({}, Restart("Listed", frozenset({WorkloadRef("StatefulSet", "web")})), id="another kind listed"),
        pytest.param({"opted_out": True}, Restart("Listed", frozenset({WEB})), id="listed, but it opted out"),
    ],
)
def test_who_is_not_to_be_restarted_is_skipped_and_owed_nothing_later(
    changes: dict[str, Any], restart: Restart
) -> None:
    found = standing(marked(OLD, **changes), recorded(OLD, OLD), restart=restart)

    assert found.state is State.SKIPPED
    assert standing(marked(OLD), recorded(NEW, found.runs.fingerprint)).state is State.HEALTHY


def test_who_is_listed_is_restarted() -> None:
    found = standing(marked(OLD), recorded(OLD, OLD), restart=Restart("Listed", frozenset({WEB})))

    assert found.state is State.PENDING


@pytest.mark.parametrize(
    ("changes", "state", "message"),
    [
        pytest.param({}, State.HEALTHY, "", id="complete"),
        pytest.param({"complete": False}, State.RESTARTING, "", id="rolling"),
        pytest.param(
            {"complete": False, "waits": "resume it"}, State.RESTARTING, "resume it", id="waiting for somebody"
        ),
        pytest.param({"complete": False, "failed": "timed out"}, State.FAILED, "timed out", id="failed"),
        pytest.param({"complete": True, "waits": "delete its pods"}, State.HEALTHY, "", id="complete, though OnDelete"),
    ],
)
def test_how_a_rollout_with_the_certificate_stands(changes: dict[str, Any], state: State, message: str) -> None:
    found = standing(marked(NEW, **changes), recorded(NEW, NEW))

    assert (found.state, found.message) == (state, message)


def test_an_older_rollout_that_failed_is_restarted_all_the_same() -> None:
    assert standing(marked(OLD, complete=False, failed="timed out"), recorded(OLD, OLD)).state is State.PENDING


def test_each_workload_stands_for_itself() -> None:
    db = WorkloadRef("StatefulSet", "db")

    standings = stand([marked(NEW), a_workload(ref=db)], a_certificate(), recorded(OLD, OLD), NOON)

    assert [(s.ref, s.state) for s in standings] == [(WEB, State.HEALTHY), (db, State.PENDING)]


# -- the condition RolledOut ---------------------------------------------------------------------------------------


def a_standing(state: State, name: str = "web", message: str = "") -> Standing:
    return Standing(ref=WorkloadRef("Deployment", name), state=state, runs=Ran(""), message=message)


P, R, H, F, S = State.PENDING, State.RESTARTING, State.HEALTHY, State.FAILED, State.SKIPPED


@pytest.mark.parametrize(
    ("states", "status", "reason"),
    [
        pytest.param([], "True", Reason.NOTHING_TO_RESTART, id="nobody"),
        pytest.param([S, S], "True", Reason.NOTHING_TO_RESTART, id="nobody who is to be restarted"),
        pytest.param([H, H], "True", Reason.ROLLED_OUT, id="all healthy"),
        pytest.param([H, S], "True", Reason.ROLLED_OUT, id="who is skipped does not count"),
        pytest.param([H, R], "False", Reason.RESTARTING, id="one rolling"),
        pytest.param([H, P, R], "False", Reason.RESTART_PENDING, id="one waiting"),
        pytest.param([H, P, R, F], "False", Reason.RESTART_FAILED, id="one failed"),
    ],
)
def test_the_worst_standing_decides_the_condition(states: list[State], status: str, reason: Reason) -> None:
    condition = rolled_out(tuple(a_standing(state) for state in states))

    assert (condition.type, condition.status, condition.reason) == ("RolledOut", status, reason)


def test_the_condition_counts_only_who_is_to_be_restarted() -> None:
    condition = rolled_out((a_standing(H), a_standing(H), a_standing(S)))

    assert condition == Condition(
        type="RolledOut",
        status="True",
        reason=Reason.ROLLED_OUT,
        message="the certificate runs in 2 of 2 workloads",
    )


def test_the_condition_names_five_and_counts_the_others() -> None:
    standings = tuple(a_standing(P, f"w{number}") for number in range(7))

    message = rolled_out((*standings, a_standing(H, "done"))).message

    assert message.endswith("Deployment/w0, Deployment/w1, Deployment/w2, Deployment/w3, Deployment/w4 and 2 more")
    assert "done" not in message


def test_the_condition_says_why_each_one_failed() -> None:
    condition = rolled_out((a_standing(F, "a", "timed out"), a_standing(F, "b"), a_standing(R, "c")))

    assert condition.message == "the rollout failed: Deployment/a (timed out), Deployment/b"


# -- waves, canary, windows ----------------------------------------------------------------------------------------

DB, JOB = WorkloadRef("StatefulSet", "db"), WorkloadRef("DaemonSet", "job")
CANARY, FIRST, SECOND = Turn(follows=False, order=9), Turn(follows=True, order=-1), Turn(follows=True, order=2)
HOUR = timedelta(hours=1)


def ran(*refs: WorkloadRef, until: datetime | None = NOON + DAY) -> Recorded:
    """The last status: everybody runs the certificate before this one, which ends at ``until``."""
    return told(OLD, {ref: Ran(mark(OLD), until) for ref in refs})


def stands(*workloads: Workload, now: datetime = NOON, **certificate: Any) -> dict[str, Standing]:
    """How these stand that all ran the certificate before this one."""
    last = ran(*(workload.ref for workload in workloads))
    return {found.ref.name: found for found in stand(workloads, a_certificate(**certificate), last, now)}


@pytest.mark.parametrize(
    ("early", "late", "words"),
    [
        pytest.param(FIRST, SECOND, "after Deployment/web (wave -1)", id="an earlier wave"),
        pytest.param(CANARY, FIRST, "after Deployment/web (the canary)", id="a canary, whatever its number"),
        pytest.param(Turn(follows=False, order=1), CANARY, "after Deployment/web (the canary)", id="canaries in order"),
    ],
)
def test_a_later_wave_waits_for_an_earlier_one(early: Turn, late: Turn, words: str) -> None:
    waits = stands(marked(OLD, turn=early), a_workload(ref=DB, turn=late))

    assert (waits["web"].held, waits["web"].message) == (False, "")
    assert (waits["db"].held, waits["db"].message) == (True, words)
    assert waits["db"].must_by == waits["web"].must_by == NOON + DAY - HOUR


def test_those_of_one_wave_do_not_wait_for_each_other() -> None:
    waits = stands(marked(OLD, turn=FIRST), a_workload(ref=DB, turn=FIRST))

    assert not any(found.held for found in waits.values())


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        pytest.param({}, False, id="healthy"),
        pytest.param({"complete": False}, True, id="rolling"),
        pytest.param({"complete": False, "waits": "resume it"}, True, id="waiting for somebody"),
        pytest.param({"complete": False, "failed": "stuck"}, True, id="failed"),
        pytest.param({"opted_out": True}, False, id="skipped"),
    ],
)
def test_the_next_wave_begins_once_the_earlier_is_healthy(changes: dict[str, Any], held: bool) -> None:
    waits = stands(marked(NEW, turn=FIRST, **changes), a_workload(ref=DB, turn=SECOND))

    assert waits["db"].state is State.PENDING
    assert waits["db"].held is held


@pytest.mark.parametrize(("turn", "name"), [(FIRST, "wave -1"), (CANARY, "the canary")])
def test_a_rollout_that_failed_holds_the_later_ones_back_whatever_ends(turn: Turn, name: str) -> None:
    failed = marked(NEW, turn=turn, complete=False, failed="stuck")
    rolling = a_workload(ref=JOB, turn=FIRST, marks=marked(NEW).marks, complete=False)

    waits = stands(rolling, failed, a_workload(ref=DB, turn=SECOND))

    assert waits["db"].message == f"held back, as Deployment/web ({name}) failed"
    assert (waits["db"].held, waits["db"].must_by) == (True, None)


@pytest.mark.parametrize(
    ("changes", "certificate"),
    [
        pytest.param({"fault": "cannot be read"}, {}, id="its annotations cannot be read"),
        pytest.param({"fault": "cannot be read", "marks": {mark_key("web-tls"): mark(NEW)}}, {}, id="nor now"),
        pytest.param({}, {"refused": {WEB: "403"}}, id="it is not allowed"),
    ],
)
def test_who_cannot_be_restarted_holds_nobody_back(changes: dict[str, Any], certificate: dict[str, Any]) -> None:
    waits = stands(a_workload(turn=FIRST, **changes), a_workload(ref=DB, turn=SECOND), **certificate)

    assert waits["web"].state is State.FAILED
    assert (waits["db"].held, waits["db"].message) == (False, "")


def test_a_canary_that_cannot_be_restarted_holds_the_others_while_there_is_time() -> None:
    waits = stands(a_workload(turn=CANARY), a_workload(ref=DB), refused={WEB: "403"})

    assert (waits["db"].held, waits["db"].must_by) == (True, NOON + DAY - HOUR)


def test_a_closed_window_is_waited_for_and_told() -> None:
    window = Window("0 14 * * *", HOUR)

    closed = stands(marked(OLD), window=window)["web"]
    opened = stands(marked(OLD), window=window, now=NOON + 2 * HOUR)["web"]

    assert (closed.not_before, closed.message) == (NOON + 2 * HOUR, "its window opens at 2026-03-01T14:00:00Z")
    assert (opened.not_before, opened.message) == (None, "")


def test_a_workloads_own_window_goes_first() -> None:
    own, general = Window("0 16 * * *", HOUR), Window("0 14 * * *", HOUR)

    waits = stands(marked(OLD, window=own), a_workload(ref=DB), window=general)

    assert (waits["web"].not_before, waits["db"].not_before) == (NOON + 4 * HOUR, NOON + 2 * HOUR)


def test_a_window_says_nothing_of_who_runs_the_certificate() -> None:
    assert stands(marked(NEW), window=Window("0 14 * * *", HOUR))["web"].not_before is None


@pytest.mark.parametrize(
    ("lifetime", "until", "must_by"),
    [
        pytest.param(DAY, NOON + DAY, NOON + DAY - HOUR, id="an hour before"),
        pytest.param(30 * DAY, NOON + DAY, NOON + DAY - HOUR, id="no more than an hour"),
        pytest.param(HOUR, NOON + HOUR, NOON + HOUR - HOUR / 10, id="a tenth of a short life"),
        pytest.param(DAY, NOON - DAY, NOON - DAY - HOUR, id="ended already"),
        pytest.param(DAY, None, None, id="nobody knows"),
    ],
)
def test_a_restart_must_come_before_the_certificate_ends_that_runs(
    lifetime: timedelta, until: datetime | None, must_by: datetime | None
) -> None:
    (found,) = stand([marked(OLD)], a_certificate(lifetime=lifetime), ran(WEB, until=until), NOON)

    assert found.must_by == must_by
    assert found.runs.until == until


# -- how long a rollout may take -----------------------------------------------------------------------------------


def since(moment: datetime | None, ref: WorkloadRef = DB) -> Recorded:
    """The last status: the workload was restarted for the certificate at ``moment``."""
    return told(NEW, {ref: Ran(mark(NEW), NOON + DAY, moment)})


def test_a_workload_that_came_while_nobody_looked_is_restarted_in_time_too() -> None:
    status = {"certificate": {"fingerprint": OLD, "notAfter": timestamp(NOON + DAY / 2)}}

    found = standing(marked(None), Recorded(status))

    assert found.runs == Ran(mark(OLD), NOON + DAY / 2)
    assert found.must_by is not None


def test_a_restart_is_dated_by_the_first_look_that_finds_it() -> None:
    (first,) = stand([marked(NEW, complete=False)], a_certificate(), ran(WEB), NOON + HOUR)
    last = told(NEW, {WEB: first.runs})
    (second,) = stand([marked(NEW, complete=False)], a_certificate(), last, NOON + 2 * HOUR)

    assert first.runs.since == second.runs.since == NOON + HOUR


@pytest.mark.parametrize(
    ("changes", "passed", "state"),
    [
        pytest.param({}, PATIENCE - timedelta(seconds=1), State.RESTARTING, id="in time"),
        pytest.param({}, PATIENCE, State.FAILED, id="overdue"),
        pytest.param({"complete": True}, PATIENCE, State.HEALTHY, id="complete"),
        pytest.param({"waits": "delete its pods"}, PATIENCE, State.RESTARTING, id="waiting for somebody"),
    ],
)
@pytest.mark.parametrize("ref", [DB, JOB], ids=str)
def test_kinds_without_a_deadline_fail_when_they_take_too_long(
    ref: WorkloadRef, changes: dict[str, Any], passed: timedelta, state: State
) -> None:
    workload = marked(NEW, ref=ref, **{"complete": False, **changes})

    (found,) = stand([workload], a_certificate(), since(NOON, ref), NOON + passed)

    assert found.state is state
    assert found.message == ("not complete 10m after its restart" if state is State.FAILED else workload.waits or "")


def test_a_deployment_has_a_deadline_of_its_own() -> None:
    """One of many replicas that makes progress is given all the time it takes."""
    (found,) = stand([marked(NEW, complete=False)], a_certificate(), since(NOON, WEB), NOON + 10 * PATIENCE)

    assert found.state is State.RESTARTING


def test_a_rollout_of_which_the_begin_is_not_known_is_given_time() -> None:
    (found,) = stand([marked(NEW, ref=DB, complete=False)], a_certificate(), since(None), NOON + DAY)

    assert found.state is State.RESTARTING


# -- who cannot be restarted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [OLD, NEW])
def test_an_annotation_that_cannot_be_read_fails_with_its_words(template: str) -> None:
    found = standing(marked(template, fault="write true or false"), recorded(OLD, OLD))

    assert (found.state, found.message) == (State.FAILED, "write true or false")
    assert found.runs.fingerprint == mark(template)


def test_a_refusal_counts_as_long_as_the_restart_is_owed() -> None:
    refused = a_certificate(refused={WEB: "403 frozen"})

    (owed,) = stand([marked(OLD)], refused, recorded(OLD, OLD), NOON)
    (paid,) = stand([marked(NEW)], refused, recorded(OLD, OLD), NOON)

    assert (owed.state, owed.message, owed.runs.fingerprint) == (State.FAILED, "403 frozen", mark(OLD))
    assert (paid.state, paid.message) == (State.HEALTHY, "")


@pytest.mark.parametrize("changes", [{"fault": "x" * 100_000}, {"failed": "x" * 100_000, "complete": False}])
def test_no_words_are_too_long_for_a_status(changes: dict[str, Any]) -> None:
    """A condition takes 32768 characters: one status that is refused would keep all others from their restart."""
    standings = [
        standing(marked(NEW, ref=WorkloadRef("Deployment", f"w{number}"), **changes), recorded(NEW))
        for number in range(100)
    ]

    assert len(rolled_out(tuple(standings)).message) < 32_768
    assert all(len(found.message) <= LONGEST_WORDS for found in standings)


# -- when to look again --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "state", "expected"),
    [
        pytest.param({}, State.PENDING, None, id="nothing"),
        pytest.param({"not_before": NOON + HOUR}, State.PENDING, NOON + HOUR, id="its window opens"),
        pytest.param({"must_by": NOON + HOUR}, State.PENDING, NOON + HOUR, id="it must be restarted"),
        pytest.param({"must_by": NOON - HOUR}, State.PENDING, None, id="that is past"),
        pytest.param({"runs": Ran("", since=NOON)}, State.RESTARTING, NOON + PATIENCE, id="patience ends"),
        pytest.param({"runs": Ran("", since=NOON)}, State.HEALTHY, None, id="no patience is needed"),
    ],
)
def test_what_changes_without_news_is_looked_at_in_time(
    changes: dict[str, Any], state: State, expected: datetime | None
) -> None:
    assert next_change([replace(a_standing(state), **changes)], NOON) == expected


def test_the_first_change_counts() -> None:
    standings = [replace(a_standing(P), not_before=NOON + hours * HOUR) for hours in (3, 1, 2)]

    assert next_change(standings, NOON) == NOON + HOUR
