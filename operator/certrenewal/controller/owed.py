"""What is one workload to be restarted for, and what keeps it from that?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from certrenewal.controller.cache import Cache, Renewal
from certrenewal.controller.siblings import of_workload
from certrenewal.domain.rollout import State, Workload, mark, mark_key
from certrenewal.domain.spec import InvalidSpec, Spec, WorkloadRef, parse_spec
from certrenewal.domain.standing import Current, stand
from certrenewal.domain.status import Ran, Recorded, Standing, Status, came_by_itself, moment_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Debt:
    """One certificate that a workload does not run yet."""

    secret: str
    mark: str
    standing: Standing
    by_hand: bool  # it came because somebody asked, not because it was due
    crt: str = "tls.crt"  # the key of the Secret that holds it


@dataclass(frozen=True, slots=True)
class Owed:
    """All certificates that a workload does not run yet: one restart brings them in."""

    debts: tuple[Debt, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.debts)

    def with_debt(self, debt: Debt) -> Owed:
        """The same with one more, or with a newer one for its Secret."""
        return Owed((*self.without(debt.secret).debts, debt))

    def without(self, secret: str) -> Owed:
        """The same without that Secret's."""
        return Owed(tuple(debt for debt in self.debts if debt.secret != secret))

    @property
    def marks(self) -> dict[str, str]:
        """The annotations of the pod template that say so."""
        return {mark_key(debt.secret): debt.mark for debt in self.debts}

    @property
    def held(self) -> bool:
        """Whether a wave before it is not through."""
        return any(debt.standing.held for debt in self.debts)

    @property
    def by_hand(self) -> bool:
        """Whether somebody had a hand in it, who may be about to change more."""
        return any(debt.by_hand for debt in self.debts)

    @property
    def opening(self) -> datetime | None:
        """When its window opens, where it is closed."""
        return max((at for debt in self.debts if (at := debt.standing.not_before)), default=None)

    @property
    def must_by(self) -> datetime | None:
        """When a certificate that it runs is too near its end to wait any longer."""
        return min((at for debt in self.debts if (at := debt.standing.must_by)), default=None)

    @property
    def ends(self) -> datetime | None:
        """When the first certificate that it runs ends; None: it runs without one, or nobody knows."""
        known = [at for debt in self.debts if (at := debt.standing.runs.until)]
        return min(known) if len(known) == len(self.debts) else None


def owed(
    cache: Cache, workload: Workload, *, refused: Mapping[WorkloadRef, str], may_signal: bool, now: datetime
) -> Owed:
    """What a workload is to be restarted for, worked out from objects alone."""
    return Owed(tuple(_debts(cache, workload, refused, may_signal, now)))


def _debts(
    cache: Cache, workload: Workload, refused: Mapping[WorkloadRef, str], may_signal: bool, now: datetime
) -> Iterator[Debt]:
    for renewal in of_workload(cache, workload):
        try:
            spec = parse_spec(renewal.key.name, renewal.spec)
        except InvalidSpec:
            continue
        current = current_of(renewal.status, spec, refused=refused, may_signal=may_signal)
        standings = stand(cache.dependents(renewal.secret), current, Recorded(renewal.status), now)
        for standing in standings:
            if standing.ref == workload.ref and (debt := debt_of(renewal, standing, current)):
                yield debt


def debt_of(renewal: Renewal, standing: Standing, current: Current) -> Debt | None:
    """What is owed to the workload of a standing, None where nothing is."""
    if standing.state is not State.PENDING or not current.runs.fingerprint:
        return None
    by_hand = not came_by_itself(renewal.status)
    return Debt(
        secret=current.secret,
        mark=current.runs.fingerprint,
        standing=standing,
        by_hand=by_hand,
        crt=current.keys.crt,
    )


def current_of(
    status: Status,
    spec: Spec,
    *,
    refused: Mapping[WorkloadRef, str],
    first: bool = False,
    may_signal: bool = True,
) -> Current:
    """The certificate that ``status`` tells of, as its workloads see it."""
    certificate = status.get("certificate") or {}
    begin, end = moment_of(certificate.get("notBefore")), moment_of(certificate.get("notAfter"))
    return Current(
        secret=spec.secret_name,
        runs=Ran(mark(certificate["fingerprint"]), end) if certificate else Ran(""),
        lifetime=end - begin if begin and end else timedelta(0),
        restart=spec.restart,
        window=spec.restart_window,
        first=first,
        refused=refused,
        keys=spec.data_keys,
        may_signal=may_signal,
    )
