"""Which certificates belong to the same workload, and which of them are about to follow one that was renewed?

A workload with five certificates should restart once in a period, not five times: certificates that are nearly due are
renewed with the first, and the restart waits for those that are on their way.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from certrenewal.controller.cache import Cache, Key, Renewal
from certrenewal.domain.rollout import Workload
from certrenewal.domain.spec import Restart
from certrenewal.domain.status import follows_sibling, is_pending, moment_of

SOON = timedelta(seconds=2)


def of_workload(cache: Cache, workload: Workload) -> Iterator[Renewal]:
    """The CertRenewals whose Secrets a workload uses."""
    for name in sorted(workload.secrets):
        for key in sorted(cache.claims(Key(workload.namespace, name))):
            if not cache.renewals[key].is_token:  # nobody is restarted for a token
                yield cache.renewals[key]


def companion(cache: Cache, renewal: Renewal, restart: Restart) -> str | None:
    """A workload that uses the Secret and waits for its restart for another certificate."""
    for workload in cache.dependents(renewal.secret):
        if workload.opted_out or not restart.covers(workload.ref):
            continue
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
    if cache.renew_now(renewal) not in ("", status.get("renewNow")):
        return True
    due = moment_of(status.get("renewalTime"))
    return (due is not None and due <= now + SOON) or follows_sibling(status, together, now)
