"""When is a certificate due, and when is a failed attempt tried again (contract §5)?

step-ca's own client renews at two thirds of the life less a random twentieth. The same span is used here, but the
point in it comes from a hash: it is spread over certificates, survives a restart and can be shown to users.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from certrenewal.domain.spec import Percent

LONGEST_RETRY = timedelta(minutes=1)
SHORTEST_RETRY = timedelta(seconds=1)
LONGEST_SILENCE = timedelta(hours=1)
SHORTEST_SILENCE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Plan:
    """When to renew; ``ignored`` says why renewBefore was not used, where it was not."""

    due: datetime
    ignored: str | None = None


def plan_renewal(
    not_before: datetime,
    not_after: datetime,
    *,
    renew_before: timedelta | Percent | None,
    uid: str,
    serial: str,
    obtained: datetime | None = None,
) -> Plan:
    """The moment of renewal, always before two thirds of the life unless the user asked for later.

    A certificate that was ``obtained`` just now is used for a tenth of its life, or half of what is left of it:
    step-ca backdates by a minute, which can be most of a short life, and a renewal must not be due at once again.
    """
    plan = _planned(not_before, not_after, renew_before, spread(uid, serial))
    if obtained is None:
        return plan
    used = min((not_after - not_before) / 10, (not_after - obtained) / 2)
    return Plan(max(plan.due, _whole(obtained + used)), plan.ignored)


def _planned(not_before: datetime, not_after: datetime, renew_before: timedelta | Percent | None, u: float) -> Plan:
    lifetime = not_after - not_before
    default = not_before + lifetime * (2 / 3 - u / 20)
    if renew_before is None:
        return Plan(_whole(default))
    before = lifetime * (renew_before.value / 100) if isinstance(renew_before, Percent) else renew_before
    due = not_after - before - before * (u / 20)
    if due <= not_before:
        return Plan(_whole(default), f"renewBefore {before} does not fit a certificate that lives {lifetime}")
    return Plan(_whole(due))


def spread(uid: str, serial: str) -> float:
    """A number in [0, 1) that is the same for the same object and certificate."""
    digest = hashlib.sha256(f"{uid}/{serial}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def retry_delay(failures: int, remaining: timedelta, *, asked: timedelta | None = None) -> timedelta:
    """How long to wait after the ``failures``-th failed attempt in a row.

    Doubles from a second to a minute, and never takes more than a twentieth of the life that is left, so that
    short certificates get their attempts too. ``asked`` is the CA's Retry-After, which only makes it later.
    """
    patient = min(SHORTEST_RETRY * float(2 ** min(failures - 1, 10)), LONGEST_RETRY)
    delay = patient if remaining <= timedelta(0) else min(patient, max(remaining / 20, SHORTEST_RETRY))
    return max(delay, asked) if asked is not None else delay


def may_follow(begin: datetime, end: datetime, due: datetime, *, share: float, now: datetime) -> bool:
    """Whether a certificate is so soon due (``share`` of its life) that it is renewed with one of the same workload.

    Only after a quarter of its life: two that are due soon after they were obtained would chase each other for ever.
    """
    lifetime = end - begin
    return now >= due - lifetime * share and now >= begin + lifetime / 4


def silence(remaining: timedelta) -> timedelta:
    """How long a clear no is taken for the last word, where nothing changes that we can see.

    A CA does not tell of all that its no may rest on (limits of the authority, policies, templates, webhooks): an
    attempt in an hour finds out, an earlier one where a certificate would be lost meanwhile.
    """
    if remaining <= timedelta(0):
        return LONGEST_SILENCE
    return min(LONGEST_SILENCE, max(remaining / 4, SHORTEST_SILENCE))


def _whole(moment: datetime) -> datetime:
    """To the second before, as status shows it: what users read and what happens are the same moment."""
    return moment.replace(microsecond=0)
