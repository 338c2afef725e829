"""Which certificates are out of use, and when is the CA told so?

A retired certificate is revoked once every workload runs its successor, and a while later: a passive revocation keeps
nobody from using it, but a client that asks a CRL must not meet it on a server that is still to be restarted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from certrenewal.domain.status import Status, condition_of, moment_of, timestamp, without


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """One certificate that waits to be revoked."""

    serial: str
    not_after: datetime
    since: datetime
    at_once: bool = False  # its key may be in other hands
    not_before: datetime | None = None  # after an attempt that failed
    message: str = ""
    authority: str = ""  # that issued it; "": nobody noted it

    def due(self, status: Status, grace: timedelta) -> datetime | None:
        """When it is to be revoked, None while a workload may still run it."""
        if self.at_once:
            moment = self.since
        else:
            condition = condition_of(status, "RolledOut")
            rolled_out = moment_of(condition.get("lastTransitionTime"))
            if condition.get("status") != "True" or rolled_out is None:
                return None
            moment = max(self.since, rolled_out) + grace
        return max(moment, self.not_before) if self.not_before else moment


def read_retired(status: Status) -> tuple[Retired, ...]:
    """The certificates that wait, from ``status.retired``; what cannot be read counts as absent."""
    return tuple(filter(None, map(_read, status.get("retired") or ())))


def _read(entry: Mapping[str, Any]) -> Retired | None:
    end, since = moment_of(entry.get("notAfter")), moment_of(entry.get("since"))
    if end is None or since is None or not str(entry.get("serial", "")).isdecimal():
        return None
    return Retired(
        serial=entry["serial"],
        not_after=end,
        since=since,
        at_once=bool(entry.get("atOnce")),
        not_before=moment_of(entry.get("nextAttempt")),
        message=entry.get("message", ""),
        authority=entry.get("authority", ""),
    )


def with_retired(status: Status, retired: Iterable[Retired]) -> Status:
    """The status with these; without the field where there are none."""
    entries = [
        {
            "serial": one.serial,
            "notAfter": timestamp(one.not_after),
            "since": timestamp(one.since),
            **({"atOnce": True} if one.at_once else {}),
            **({"nextAttempt": timestamp(one.not_before)} if one.not_before else {}),
            **({"message": one.message} if one.message else {}),
            **({"authority": one.authority} if one.authority else {}),
        }
        for one in retired
    ]
    return {**status, "retired": entries} if entries else without(status, "retired")


def retire(before: Status, after: Status, *, at_once: bool, now: datetime) -> Status:
    """``after`` with the certificate that ``before`` tells of put out of use, where it is another one."""
    old, new = before.get("certificate") or {}, after.get("certificate") or {}
    end = moment_of(old.get("notAfter"))
    if not old or end is None or old.get("serial") == new.get("serial"):
        return after
    known = [one for one in read_retired(after) if one.serial != old["serial"]]
    one = Retired(serial=old["serial"], not_after=end, since=now, at_once=at_once, authority=old.get("authority", ""))
    return with_retired(after, [*known, one])


def postponed(one: Retired, *, message: str, until: datetime) -> Retired:
    """The same after an attempt that failed."""
    return replace(one, message=message, not_before=until)
