"""Which workloads still run an older certificate, which one each of them runs, and what keeps them from the new one?

A restart is owed where the pod template does not carry the certificate's mark *and* the last status does not say that
the workload runs it. Both are needed: the mark survives a kill between restart and status, the status survives a
rollback that takes the mark away. A workload of which nothing is known began after the certificate was written, or
ran before the operator came: neither is restarted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from certrenewal.domain import annotation
from certrenewal.domain.durations import format_duration
from certrenewal.domain.kinds import NOT_RESTARTED
from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import State, Workload, mark
from certrenewal.domain.spec import DataKeys, Restart, WorkloadRef
from certrenewal.domain.status import Condition, Ran, Recorded, Standing, timestamp
from certrenewal.domain.window import Window

# As long as a Deployment takes by default to call a rollout failed; other kinds never say so themselves.
PATIENCE = timedelta(minutes=10)
LONGEST_MARGIN = timedelta(hours=1)
NO_SIGNALS = (
    f'{annotation.RESTART}: "Signal" needs the right to run commands in pods: set restarts.signal: true in the values '
    f'of the operator\'s chart, or write "Auto" to have it restarted'
)
LONGEST_WORDS = 500  # of one workload: a message that is too long would keep the whole status from being written


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The certificate that the Secret holds, and how its workloads are to be brought to it."""

    secret: str
    runs: Ran  # with the mark "" where there is no certificate yet
    lifetime: timedelta = timedelta(0)
    restart: Restart = field(default_factory=Restart)
    window: Window | None = None
    first: bool = False  # the first one that this Secret holds: a workload of which nothing is known began without
    refused: Mapping[WorkloadRef, str] = field(default_factory=dict)  # restarts that the API server does not allow
    keys: DataKeys = field(default_factory=DataKeys)
    may_signal: bool = True  # whether we have the right to run what makes a workload reload


def stand(workloads: Iterable[Workload], current: Current, recorded: Recorded, now: datetime) -> tuple[Standing, ...]:
    """How each dependent workload stands towards the certificate."""
    known = list(workloads)
    current = replace(current, restart=widened(current.restart, known))
    standings = [_stand(workload, current, recorded, now) for workload in known]
    turns = {workload.ref: workload for workload in known}
    return tuple(
        _queued(standing, turns, standings, current, now) if standing.state is State.PENDING else standing
        for standing in standings
    )


def _stand(workload: Workload, current: Current, recorded: Recorded, now: datetime) -> Standing:
    words = excuse(workload, current.secret, current.restart)
    if words is not None:
        # It sees to itself, or nobody wants it restarted: it is owed nothing, later neither.
        hint = _hint(workload, current) if workload.opted_out else ""
        return Standing(ref=workload.ref, state=State.SKIPPED, runs=current.runs, message=words or hint)
    runs = _runs(workload, current, recorded, now)
    waits = runs.fingerprint != current.runs.fingerprint or not runs.fingerprint
    refusal = current.refused.get(workload.ref) if waits else None
    if fault := _fault(workload, current) or refusal:
        return Standing(ref=workload.ref, state=State.FAILED, runs=runs, message=_short(fault))
    if waits:
        return Standing(ref=workload.ref, state=State.PENDING, runs=runs)
    if failed := workload.failed or _overdue(workload, runs, now):
        return Standing(ref=workload.ref, state=State.FAILED, runs=runs, message=_short(failed))
    if not workload.complete:
        return Standing(ref=workload.ref, state=State.RESTARTING, runs=runs, message=workload.waits or "")
    return Standing(ref=workload.ref, state=State.HEALTHY, runs=runs)


def excuse(workload: Workload, secret: str, restart: Restart) -> str | None:
    """Why a workload is not to be restarted for a Secret, empty where that needs no words; None where it is."""
    if workload.ref.kind in NOT_RESTARTED:
        return NOT_RESTARTED[workload.ref.kind]
    if workload.opted_out or not restart.covers(workload.through or workload.ref):
        return ""
    if workload.through is not None:
        return f"restarted through {workload.through}"
    return workload.reloader.objection_to(secret) if workload.reloader else None


def widened(restart: Restart, workloads: Iterable[Workload]) -> Restart:
    """Who lists a workload means the owner that is restarted in its place."""
    if not restart.listed:
        return restart
    owners = {workload.through for workload in workloads if workload.through and restart.covers(workload.ref)}
    return replace(restart, listed=restart.listed | owners)


def _hint(workload: Workload, current: Current) -> str:
    """Why a workload that nobody restarts goes on with an old certificate."""
    why = workload.needs_restart(current.secret, _written(current.keys))
    return f"{why}, which only a restart renews" if why else ""


def _fault(workload: Workload, current: Current) -> str | None:
    """Why a workload can neither be restarted nor told of new files, as far as its own words go."""
    if workload.fault is not None or workload.reload is None:
        return workload.fault
    if why := workload.needs_restart(current.secret, _written(current.keys)):
        return f'{why}, which no signal renews: write {annotation.RESTART}: "Auto" to have it restarted'
    return None if current.may_signal else NO_SIGNALS


def _written(keys: DataKeys) -> frozenset[str]:
    return frozenset({keys.crt, keys.key, keys.ca})


def _runs(workload: Workload, current: Current, recorded: Recorded, now: datetime) -> Ran:
    mine = current.runs
    before = recorded.workloads.get(workload.ref)
    if before is None:
        first = mark(recorded.fingerprint) if recorded.fingerprint else "" if current.first else mine.fingerprint
        before = mine if first == mine.fingerprint else Ran(first, recorded.ends if first else None)
    if workload.mark_of(current.secret) == mine.fingerprint and before.fingerprint != mine.fingerprint:
        return replace(mine, since=now)
    return replace(mine, since=before.since) if before.fingerprint == mine.fingerprint else before


def _overdue(workload: Workload, runs: Ran, now: datetime) -> str | None:
    """A rollout that takes too long, where nobody is awaited and the workload has no deadline of its own."""
    if workload.ref.kind in _HAVE_DEADLINES or workload.complete or workload.waits:
        return None
    if runs.since is None or now < runs.since + PATIENCE:
        return None
    return f"not complete {format_duration(PATIENCE)} after its restart"


_HAVE_DEADLINES = frozenset({"Deployment", "Rollout"})


def _short(words: str) -> str:
    return words if len(words) <= LONGEST_WORDS else f"{words[: LONGEST_WORDS - 1]}…"


def _queued(
    standing: Standing,
    workloads: Mapping[WorkloadRef, Workload],
    standings: Iterable[Standing],
    current: Current,
    now: datetime,
) -> Standing:
    """What a workload waits for that is owed a restart: a wave before it, its window, or just its turn."""
    workload = workloads[standing.ref]
    standing = replace(standing, must_by=_must_by(standing.runs, current))
    before = [
        other
        for other in standings
        if workloads[other.ref].turn < workload.turn
        and other.state not in (State.SKIPPED, State.HEALTHY)
        and not (_is_untried(other, workloads[other.ref], current) and workloads[other.ref].turn.follows)
    ]
    tried = [other for other in before if not _is_untried(other, workloads[other.ref], current)]
    if failed := next((other for other in tried if other.state is State.FAILED), None):
        words = f"held back, as {failed.ref} ({workloads[failed.ref].turn}) failed"
        return replace(standing, message=words, held=True, must_by=None)
    if before:
        words = f"after {before[0].ref} ({workloads[before[0].ref].turn})"
        return replace(standing, message=words, held=True)
    window = workload.window or current.window
    opening = window.opening(now) if window else now
    if opening <= now:
        return standing
    return replace(standing, message=f"its window opens at {timestamp(opening)}", not_before=opening)


def _is_untried(standing: Standing, workload: Workload, current: Current) -> bool:
    """Failed, but not by a rollout: who cannot be restarted holds no later wave, only a canary does while it can."""
    return standing.state is State.FAILED and (
        _fault(workload, current) is not None or standing.runs.fingerprint != current.runs.fingerprint
    )


def _must_by(runs: Ran, current: Current) -> datetime | None:
    """The last moment for a restart before the certificate ends that the workload runs; a rollout takes its time."""
    return runs.until - min(LONGEST_MARGIN, current.lifetime / 10) if runs.until else None


def next_change(standings: Iterable[Standing], now: datetime) -> datetime | None:
    """When these standings change without news: a window opens, a certificate nears its end, patience is over."""
    moments = [
        moment
        for standing in standings
        for moment in (
            standing.not_before,
            standing.must_by,
            standing.runs.since + PATIENCE if standing.state is State.RESTARTING and standing.runs.since else None,
        )
        if moment is not None and moment > now
    ]
    return min(moments, default=None)


def rolled_out(standings: tuple[Standing, ...]) -> Condition:
    """The condition RolledOut of these standings."""

    def condition(status: str, reason: Reason, message: str) -> Condition:
        return Condition(type="RolledOut", status=status, reason=reason, message=message)

    counted = [s for s in standings if s.state is not State.SKIPPED]
    if not counted:
        return condition("True", Reason.NOTHING_TO_RESTART, "no workload that is to be restarted uses the Secret")
    for state, reason, words in _UNFINISHED:
        if waiting := [s for s in counted if s.state is state]:
            names = ", ".join(f"{s.ref}{f' ({s.summary})' if s.message else ''}" for s in waiting[:5])
            more = f" and {len(waiting) - 5} more" if len(waiting) > 5 else ""
            return condition("False", reason, f"{words}: {names}{more}")
    return condition("True", Reason.ROLLED_OUT, f"the certificate runs in {len(counted)} of {len(counted)} workloads")


_UNFINISHED = (
    (State.FAILED, Reason.RESTART_FAILED, "the rollout failed"),
    (State.PENDING, Reason.RESTART_PENDING, "waiting for their restart"),
    (State.RESTARTING, Reason.RESTARTING, "rolling out"),
)
