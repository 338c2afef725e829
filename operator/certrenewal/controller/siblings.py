"""Which certificates belong to the same workload, and which of them are about to follow one that was renewed?

A workload with five certificates should restart once in a period, not five times: certificates that are nearly due are
renewed with the first, and the restart waits for those that are on their way.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from certrenewal.controller.cache import Cache, Key, Renewal
from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import Workload
from certrenewal.domain.spec import InvalidSpec, Restart, parse_spec
from certrenewal.domain.standing import excuse, widened
from certrenewal.domain.status import condition_of, follows_sibling, is_pending, moment_of

SOON = timedelta(seconds=2)

# Why a certificate is not there yet that the CA was asked for; all else stands still until somebody changes something.
_ASKED_FOR = frozenset(
    {
        Reason.MISSING,
        Reason.MALFORMED,
        Reason.KEY_MISMATCH,
        Reason.KEY_CHANGED,
        Reason.ISSUER_CHANGED,
        Reason.NAMES_CHANGED,
        Reason.DURATION_CHANGED,
        Reason.EXPIRED,
    }
)


def of_workload(cache: Cache, workload: Workload) -> Iterator[Renewal]:
    """The CertRenewals whose Secrets a workload uses."""
    for name in sorted(workload.secrets):
        for renewal in map(cache.renewals.__getitem__, sorted(cache.claims(Key(workload.namespace, name)))):
            # Nobody is restarted for a token, nor for one whose status nobody keeps, as another one has its Secret.
            if not renewal.is_token and condition_of(renewal.status, "Ready").get("reason") != Reason.CONFLICT:
                yield renewal


def restarting(cache: Cache, workload: Workload) -> Iterator[Renewal]:
    """Those of them that this workload is restarted for."""
    for renewal in of_workload(cache, workload):
        try:
            spec = parse_spec(renewal.key.name, {"restart": renewal.spec.get("restart")})
        except InvalidSpec:
            continue
        restart = widened(spec.restart, cache.dependents(renewal.secret))
        if excuse(workload, renewal.secret.name, restart) is None:
            yield renewal


def restarted_at(cache: Cache, workload: Workload) -> datetime | None:
    """When the workload was last restarted for any of its certificates, as far as their statuses tell."""
    moments = [
        moment_of(entry.get("restartedAt"))
        for renewal in of_workload(cache, workload)
        for entry in renewal.status.get("workloads") or ()
        if (entry["kind"], entry["name"]) == (workload.ref.kind, workload.ref.name)
    ]
    return max(filter(None, moments), default=None)


def companion(cache: Cache, renewal: Renewal, restart: Restart) -> str | None:
    """A workload that uses the Secret and waits for its restart for another certificate."""
    workloads = cache.dependents(renewal.secret)
    restart = widened(restart, workloads)
    for workload in workloads:
        if excuse(workload, renewal.secret.name, restart) is not None:
            continue
        if is_pending(renewal.status, workload.ref):
            continue  # it is about to take in this one too: renewed again, the two would chase each other
        for other in of_workload(cache, workload):
            if other.key != renewal.key and is_pending(other.status, workload.ref):
                return str(workload.ref)
    return None


def about_to_follow(cache: Cache, renewal: Renewal, *, together: float, now: datetime) -> bool:
    """Whether its certificate will be another in a moment, as far as anybody can know."""
    status = renewal.status
    if "failure" in status:
        return False
    if "conditions" not in status or status.get("observedGeneration") != renewal.generation:
        return True  # nobody has looked at it yet, as it is now
    if (ready := condition_of(status, "Ready")).get("status") == "False":
        return ready.get("reason") in _ASKED_FOR
    if cache.renew_now(renewal) not in ("", status.get("renewNow")):
        return True
    due = moment_of(status.get("renewalTime"))
    return (due is not None and due <= now + SOON) or follows_sibling(status, together, now)
