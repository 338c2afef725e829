"""Guards: who is owed a restart, worked out from objects alone, so that a kill at any point owes nobody twice or never.

The certificate in the Secret is ``NEW`` throughout, the one before it ``OLD``.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import State, Workload, mark, mark_key
from certrenewal.domain.spec import Restart, WorkloadRef
from certrenewal.domain.standing import Current, rolled_out, stand
from certrenewal.domain.status import Condition, Ran, Recorded, Standing
from tests.unit.builders import DAY, NOON, WEB, a_workload

OLD, NEW, OTHER = "01" * 32, "fe" * 32, "77" * 32

NOTHING = object()


def recorded(fingerprint: str | None, web: Any = NOTHING) -> Recorded:
    """What the last status says: which certificate the Secret held, and which one the workload ran."""
    return Recorded(
        obtained=None,
        fingerprint=fingerprint,
        names=(),
        duration=None,
        failures=0,
        renew_now="",
        workloads={} if web is NOTHING else {WEB: Ran(mark(web) if web else "")},
    )


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
    next_look = standing(
        marked(template),
        Recorded(
            fingerprint=NEW,
            names=(),
            duration=None,
            obtained=None,
            failures=0,
            renew_now="",
            workloads={WEB: after.runs},
        ),
    )

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
