"""Which workloads still run an older certificate, and which one each of them runs?

A restart is owed where the pod template does not carry the certificate's mark *and* the last status does not say that
the workload runs it. Both are needed: the mark survives a kill between restart and status, the status survives a
rollback that takes the mark away. A workload of which nothing is known began after the certificate was written, or
ran before the operator came: neither is restarted.
"""

from __future__ import annotations

from collections.abc import Iterable

from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import State, Workload, mark
from certrenewal.domain.spec import Restart
from certrenewal.domain.status import Condition, Recorded, Standing


def stand(
    workloads: Iterable[Workload],
    *,
    secret: str,
    fingerprint: str | None,
    restart: Restart,
    recorded: Recorded,
    fresh: bool = False,
) -> tuple[Standing, ...]:
    """How each dependent workload stands towards the certificate (None: there is none yet).

    ``fresh``: it is the first one that this Secret holds, so that a workload of which nothing is known began without.
    """
    current = mark(fingerprint) if fingerprint else ""
    first = mark(recorded.fingerprint) if recorded.fingerprint else "" if fresh else current
    return tuple(_stand(workload, secret, current, first, restart, recorded) for workload in workloads)


def _stand(workload: Workload, secret: str, current: str, first: str, restart: Restart, recorded: Recorded) -> Standing:
    if workload.opted_out or not restart.covers(workload.ref):
        # It sees to itself, or nobody wants it restarted: it is owed nothing, later neither.
        return Standing(ref=workload.ref, state=State.SKIPPED, fingerprint=current)
    runs = current if workload.mark_of(secret) == current else recorded.workloads.get(workload.ref, first)
    if runs != current or not current:
        return Standing(ref=workload.ref, state=State.PENDING, fingerprint=runs)
    if workload.failed:
        return Standing(ref=workload.ref, state=State.FAILED, fingerprint=runs, message=workload.failed)
    if not workload.complete:
        return Standing(ref=workload.ref, state=State.RESTARTING, fingerprint=runs, message=workload.waits or "")
    return Standing(ref=workload.ref, state=State.HEALTHY, fingerprint=runs)


def rolled_out(standings: tuple[Standing, ...]) -> Condition:
    """The condition RolledOut of these standings."""

    def condition(status: str, reason: Reason, message: str) -> Condition:
        return Condition(type="RolledOut", status=status, reason=reason, message=message)

    counted = [s for s in standings if s.state is not State.SKIPPED]
    if not counted:
        return condition("True", Reason.NOTHING_TO_RESTART, "no workload that is to be restarted uses the Secret")
    for state, reason, words in _UNFINISHED:
        if waiting := [s for s in counted if s.state is state]:
            names = ", ".join(f"{s.ref}{f' ({s.message})' if s.message else ''}" for s in waiting[:5])
            more = f" and {len(waiting) - 5} more" if len(waiting) > 5 else ""
            return condition("False", reason, f"{words}: {names}{more}")
    return condition("True", Reason.ROLLED_OUT, f"the certificate runs in {len(counted)} of {len(counted)} workloads")


_UNFINISHED = (
    (State.FAILED, Reason.RESTART_FAILED, "the rollout failed"),
    (State.PENDING, Reason.RESTART_PENDING, "waiting for their restart"),
    (State.RESTARTING, Reason.RESTARTING, "rolling out"),
)
