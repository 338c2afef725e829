"""How does a CertRenewal tell what is, what comes next and what happened: changes to its status, each a pure step."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from certrenewal.domain.certificate import Leaf
from certrenewal.domain.durations import format_duration, parse_duration
from certrenewal.domain.history import History
from certrenewal.domain.names import Name, parse_names
from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import State
from certrenewal.domain.routes import Route
from certrenewal.domain.spec import WorkloadRef
from certrenewal.domain.timing import may_follow

HISTORY = 10
LONGEST_MESSAGE = 32768  # characters, as the API conventions have it: a longer one keeps a whole status unwritten

Status = Mapping[str, Any]


def compact(status: Status) -> Status:
    """The same status in less memory."""
    history = status.get("history")
    return {**status, "history": History(history)} if history else status


@functools.lru_cache(maxsize=256)  # one look writes the same few several times
def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as Kubernetes writes times."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def moment_of(text: str | None) -> datetime | None:
    """Read back what `timestamp` wrote; None where it is absent or unreadable."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition, before it is merged into a status."""

    type: str
    status: str  # True, False, Unknown
    reason: Reason
    message: str


def with_condition(status: Status, condition: Condition, *, generation: int, now: datetime) -> Status:
    """The status with one condition replaced; its transition time moves only with its status."""
    others = [c for c in status.get("conditions") or () if c["type"] != condition.type]
    before = condition_of(status, condition.type)
    moved = before.get("status") != condition.status
    entry = {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason.value,
        "message": condition.message[:LONGEST_MESSAGE],
        "lastTransitionTime": timestamp(now) if moved else before["lastTransitionTime"],
        "observedGeneration": generation,
    }
    conditions = sorted([*others, entry], key=lambda c: str(c["type"]))
    return {**status, "conditions": conditions, "observedGeneration": generation}


def without(status: Status, name: str) -> Status:
    """The status without that field."""
    return {key: value for key, value in status.items() if key != name} if name in status else status


def without_condition(status: Status, kind: str) -> Status:
    """The status without the condition of that type."""
    conditions = status.get("conditions") or ()
    kept = [c for c in conditions if c["type"] != kind]
    return {**status, "conditions": kept} if len(kept) < len(conditions) else status


def condition_of(status: Status, kind: str) -> Mapping[str, Any]:
    """The condition of that type, empty where there is none."""
    condition: Mapping[str, Any]
    for condition in status.get("conditions") or ():
        if condition["type"] == kind:
            return condition
    return {}


def with_certificate(
    status: Status,
    leaf: Leaf,
    *,
    due: datetime,
    duration: timedelta | None,
    issuer: str | None = None,
    root: str | None = None,
    authority: str = "",
) -> Status:
    """The status with the certificate at hand, the fingerprint of its root, and the time of its renewal.

    ``issuer`` is its distinguished name, where it is known without reading the leaf once more.
    """
    certificate = {
        "serial": leaf.serial,
        "fingerprint": leaf.fingerprint,
        "notBefore": timestamp(leaf.not_before),
        "notAfter": timestamp(leaf.not_after),
        "issuer": issuer or leaf.issuer,
        "names": [str(name) for name in leaf.names],
        **({"root": root} if root else {}),
        **({"authority": authority} if authority else {}),
        **({"duration": format_duration(duration)} if duration else {}),
    }
    return {**status, "certificate": certificate, "renewalTime": timestamp(due)}


def with_renewal(
    status: Status,
    leaf: Leaf,
    *,
    route: Route,
    reason: Reason,
    now: datetime,
    root: str | None = None,
    refused: Iterable[tuple[Route, str]] = (),
) -> Status:
    """The status with one more certificate obtained, in `lastRenewal` and in the history of the last ten.

    ``refused`` are the routes that the CA refused before, with its words.
    """
    at = timestamp(now)
    entry = {
        "time": at,
        "serial": leaf.serial,
        "fingerprint": leaf.fingerprint,
        "route": route.value,
        "reason": reason.value,
        "notAfter": timestamp(leaf.not_after),
        **({"root": root} if root else {}),
    }
    last: dict[str, Any] = {"time": at, "route": route.value, "reason": reason.value}
    if rungs := [{"route": tried.value, "message": words} for tried, words in refused]:
        last["refused"] = rungs
    return {**status, "lastRenewal": last, "history": [entry, *(status.get("history") or ())][:HISTORY]}


def with_failure(status: Status, *, reason: Reason, message: str, now: datetime, attempt_at: datetime | None) -> Status:
    """The status with one more failed attempt, counted since the first."""
    before = status.get("failure") or {}
    failure = {
        "count": int(before.get("count", 0)) + 1,
        "reason": reason.value,
        "message": message,
        "since": before.get("since") or timestamp(now),
        **({"nextAttempt": timestamp(attempt_at)} if attempt_at else {}),
    }
    return {**status, "failure": failure}


@dataclass(frozen=True, slots=True)
class Ran:
    """Which certificate a workload runs, or ran."""

    fingerprint: str  # its mark; "" for none at all
    until: datetime | None = None  # when that certificate ends, where it is known
    since: datetime | None = None  # when the workload was restarted for it, where it was


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one workload stands towards the certificate."""

    ref: WorkloadRef
    state: State
    runs: Ran
    message: str = ""
    held: bool = False  # by a wave before it
    not_before: datetime | None = None  # of its window
    must_by: datetime | None = None  # whatever budget, window and waves before it say

    @property
    def summary(self) -> str:
        """The message without what a command of the user's printed, which follows in further lines."""
        return self.message.partition("\n")[0]


def with_workloads(status: Status, standings: Iterable[Standing]) -> Status:
    """The status with the workloads that depend on the Secret, and the RESTARTS column."""
    ordered = sorted(standings, key=lambda s: s.ref)
    counted = [s for s in ordered if s.state is not State.SKIPPED]
    healthy = sum(s.state is State.HEALTHY for s in counted)
    entries = [
        {
            "kind": s.ref.kind,
            "name": s.ref.name,
            "state": s.state.value,
            "fingerprint": s.runs.fingerprint,
            **({"message": s.message} if s.message else {}),
            **({"notAfter": timestamp(s.runs.until)} if s.runs.until else {}),
            **({"restartedAt": timestamp(s.runs.since)} if s.runs.since else {}),
        }
        for s in ordered
    ]
    return {**status, "workloads": entries, "restarts": f"{healthy}/{len(counted)}"}


@dataclass(frozen=True, slots=True)
class Revoking:
    """A request for another key that is about to be met: it is once the Secret's key is not this one."""

    request: str
    key: str  # SHA-256 of the public key

    def is_met(self, request: str, key: str) -> bool:
        """Whether the Secret holds another key for the sake of this very request."""
        return self.request == request and self.key != key


@dataclass(frozen=True)  # without slots, for the properties that are kept
class Recorded:
    """What an earlier look wrote down and a later one builds on; what cannot be read counts as absent."""

    status: Status

    @property
    def _certificate(self) -> Mapping[str, Any]:
        return self.status.get("certificate") or {}

    @property
    def fingerprint(self) -> str | None:
        """Of the certificate at hand."""
        return self._certificate.get("fingerprint")

    @property
    def root(self) -> str | None:
        """The fingerprint of the root that it leads to."""
        return self._certificate.get("root")

    @property
    def authority(self) -> str:
        """The CertAuthority that it is from; "" where nobody noted it."""
        return str(self._certificate.get("authority") or "")

    @property
    def ends(self) -> datetime | None:
        """When it ends."""
        return moment_of(self._certificate.get("notAfter"))

    @property
    def stores(self) -> frozenset[str]:
        """SHA-256 of the key stores that are known to be ours."""
        return frozenset((self.status.get("observedSecret") or {}).get("stores") or ())

    @functools.cached_property
    def names(self) -> tuple[Name, ...]:
        """Those that it carries."""
        try:
            return parse_names(self._certificate.get("names") or ())
        except ValueError:
            return ()

    @functools.cached_property
    def duration(self) -> timedelta | None:
        """What was asked for; None: the CA's default, or nobody knows."""
        text = self._certificate.get("duration")
        try:
            return parse_duration(text) if text else None
        except ValueError:
            return None

    @property
    def obtained(self) -> datetime | None:
        """When it was had from the CA; None: not by us."""
        latest: Mapping[str, Any] = next(iter(self.status.get("history") or ()), {})
        return moment_of(latest.get("time")) if latest.get("fingerprint") == self.fingerprint else None

    @property
    def failures(self) -> int:
        """The attempts that failed since the last that did not."""
        return int((self.status.get("failure") or {}).get("count", 0))

    @property
    def renew_now(self) -> str:
        """The value of the annotation that was honoured last."""
        return str(self.status.get("renewNow", ""))

    @property
    def revoke_now(self) -> str:
        """As renew_now."""
        return str(self.status.get("revokeNow", ""))

    @property
    def revoking(self) -> Revoking | None:
        """The request for another key that is about to be met."""
        entry = self.status.get("revoking") or {}
        request, key = entry.get("request"), entry.get("key")
        return Revoking(request, key) if request and key else None

    @functools.cached_property
    def workloads(self) -> Mapping[WorkloadRef, Ran]:
        """Which certificate each workload ran."""
        return {
            WorkloadRef(entry["kind"], entry["name"]): Ran(
                entry.get("fingerprint", ""), moment_of(entry.get("notAfter")), moment_of(entry.get("restartedAt"))
            )
            for entry in self.status.get("workloads") or ()
        }

    @property
    def formats(self) -> frozenset[str]:
        """The keys of the Secret that hold other forms of ours."""
        return frozenset(self.status.get("formats") or ())


def with_revoking(status: Status, revoking: Revoking) -> Status:
    """The status with a request for another key that is about to be met."""
    return {**status, "revoking": {"request": revoking.request, "key": revoking.key}}


def with_revoked(status: Status, request: str) -> Status:
    """The status with a request that was met."""
    return {**without(status, "revoking"), "revokeNow": request}


def is_pending(status: Status, ref: WorkloadRef) -> bool:
    """Whether a workload still waits for its restart."""
    return any(
        (entry["kind"], entry["name"], entry["state"]) == (ref.kind, ref.name, State.PENDING)
        for entry in status.get("workloads") or ()
    )


def came_by_itself(status: Status) -> bool:
    """Whether the certificate at hand was due, so that nobody outside had a hand in it."""
    latest: Mapping[str, Any] = next(iter(status.get("history") or ()), {})
    ours = latest.get("fingerprint") == (status.get("certificate") or {}).get("fingerprint")
    return ours and latest.get("reason") in (Reason.RENEWAL_DUE, Reason.SIBLING_RENEWED)


def follows_sibling(status: Status, share: float, now: datetime) -> bool:
    """Whether it is soon enough due to be renewed along with a sibling; see `timing.may_follow`."""
    certificate = status.get("certificate") or {}
    begin, end = moment_of(certificate.get("notBefore")), moment_of(certificate.get("notAfter"))
    due = moment_of(status.get("renewalTime"))
    if begin is None or end is None or due is None or "failure" in status:
        return False
    return may_follow(begin, end, due, share=share, now=now)


def roots_in_use(status: Status, now: datetime) -> set[str]:
    """The fingerprints of the roots that verify this certificate, or one that a workload may still run."""
    certificates = [status.get("certificate") or {}]
    if condition_of(status, "RolledOut").get("status") != "True":
        certificates += status.get("history") or ()
    return {
        certificate["root"]
        for certificate in certificates
        if "root" in certificate and (moment_of(certificate.get("notAfter")) or now) > now
    }


def difference(before: Status, after: Status) -> dict[str, Any]:
    """The merge patch from one status to another, empty where nothing changed (RFC 7386)."""
    if before == after:
        return {}
    patch: dict[str, Any] = dict.fromkeys(before.keys() - after.keys())
    for key, new in after.items():
        old = before.get(key)
        if old == new:
            continue
        # A merge patch keeps what it does not name: members that went away have to be named.
        if isinstance(old, dict) and isinstance(new, dict):
            patch[key] = {**dict.fromkeys(old.keys() - new.keys()), **new}
        else:
            patch[key] = list(new) if isinstance(new, History) else new
    return patch
