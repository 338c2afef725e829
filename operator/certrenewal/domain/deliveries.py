"""Which hooks have heard of the certificate at hand, when are the others tried, and what is to be said of them?

A hook hears of certificates that the operator obtained, each once. What was delivered is in ``status.hooks``; all else
is owed, so that a process that starts anew goes on where another ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from certrenewal.domain.hooks import After, Hook
from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import mark
from certrenewal.domain.status import Condition, Status, condition_of, moment_of, timestamp, without, without_condition

FIRST_RETRY = timedelta(seconds=1)
LONGEST_RETRY = timedelta(minutes=5)
_CUT_OFF = timedelta(seconds=1)  # of the time of an attempt, which status keeps in whole seconds

_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


class State(StrEnum):
    """The words of ``status.hooks[].state``."""

    DELIVERED = "Delivered"
    FAILING = "Failing"  # tried again, ever more rarely
    REFUSED = "Refused"  # by the receiver: not tried again for this certificate
    DENIED = "Denied"  # by the operator's own list of hosts: nothing was sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How one hook stands towards one certificate."""

    hook: str
    mark: str  # of the certificate
    generation: int  # of the CertRenewal whose spec was followed
    time: datetime
    attempts: int
    state: State
    message: str = ""
    secrets: str = ""  # a digest of which Secrets its headers were made of, where it was refused


Deliveries = Mapping[str, Delivery]


def read_deliveries(status: Status) -> dict[str, Delivery]:
    """Read ``status.hooks`` back; what cannot be read counts as never tried."""
    found: dict[str, Delivery] = {}
    for entry in status.get("hooks") or ():
        time = moment_of(entry.get("time"))
        if time is None or entry.get("state") not in list(State):
            continue
        found[entry["name"]] = Delivery(
            hook=entry["name"],
            mark=entry.get("fingerprint", ""),
            generation=int(entry.get("observedGeneration", 0)),
            time=time,
            attempts=int(entry.get("attempts", 0)),
            state=State(entry["state"]),
            message=entry.get("message", ""),
            secrets=entry.get("observedSecrets", ""),
        )
    return found


def describe(deliveries: Iterable[Delivery]) -> list[dict[str, Any]]:
    """``status.hooks``."""
    return [
        {
            "name": delivery.hook,
            "fingerprint": delivery.mark,
            "observedGeneration": delivery.generation,
            "time": timestamp(delivery.time),
            "attempts": delivery.attempts,
            "state": delivery.state.value,
            **({"message": delivery.message} if delivery.message else {}),
            **({"observedSecrets": delivery.secrets} if delivery.secrets else {}),
        }
        for delivery in deliveries
    ]


def with_news(recorded: Deliveries, news: Deliveries) -> dict[str, Delivery]:
    """What is recorded, and what happened since. What was delivered stays so, whoever tried once more."""

    def later(hook: str, new: Delivery) -> bool:
        old = recorded.get(hook)
        return old is None or old.mark != new.mark or (old.state is not State.DELIVERED and old.time <= new.time)

    return {**recorded, **{hook: new for hook, new in news.items() if later(hook, new)}}


def own_mark(status: Status) -> str | None:
    """The mark of the certificate at hand, None where there is none or another than us brought it."""
    latest: Mapping[str, Any] = next(iter(status.get("history") or ()), {})
    fingerprint = (status.get("certificate") or {}).get("fingerprint")
    return mark(fingerprint) if fingerprint and fingerprint == latest.get("fingerprint") else None


def answered(code: int) -> State:
    """What an answer means: only 2xx is a yes, and most of 4xx a no that will not become one by itself."""
    if 200 <= code < 300:
        return State.DELIVERED
    return State.REFUSED if 400 <= code < 500 and code not in _PASSING else State.FAILING


def retry_after(attempts: int) -> timedelta:
    """How long to wait after so many attempts that failed: from a second, doubling, to five minutes."""
    return min(FIRST_RETRY * float(2 ** min(attempts - 1, 16)), LONGEST_RETRY)


def due(hook: Hook, status: Status, delivery: Delivery | None, *, generation: int, now: datetime) -> datetime | None:
    """When a hook is to be tried; None where it owes nothing, waits for the rollout, or was refused."""
    current = own_mark(status)
    if current is None or not _is_its_turn(hook, status):
        return None
    if delivery is None or delivery.mark != current:
        return now
    match delivery.state:
        case State.DELIVERED:
            return None
        case State.REFUSED:
            # Who reads the Secrets of its headers can tell whether they are others, and sends nothing to find out.
            return now if delivery.generation != generation or hook.secrets else None
        case State.DENIED:
            return now  # who denied it can tell whether it still would, and sends nothing to find out
        case State.FAILING:
            after = retry_after(delivery.attempts) + _CUT_OFF
            return now if delivery.generation != generation else delivery.time + after


def _is_its_turn(hook: Hook, status: Status) -> bool:
    return hook.after is After.RENEWAL or condition_of(status, "RolledOut").get("status") == "True"


def with_deliveries(status: Status, hooks: Iterable[Hook], deliveries: Deliveries) -> Status:
    """The status with how each hook stands, as far as it was ever tried."""
    entries = describe(deliveries[hook.name] for hook in hooks if hook.name in deliveries)
    return {**status, "hooks": entries} if entries else without(status, "hooks")


def without_deliveries(status: Status) -> Status:
    """The status of one that asks for no hook."""
    return without_condition(without(status, "hooks"), "HooksDelivered")


def hooks_condition(hooks: tuple[Hook, ...], status: Status, deliveries: Deliveries) -> Condition:
    """The condition HooksDelivered."""

    def condition(holds: bool, reason: Reason, message: str) -> Condition:
        return Condition(type="HooksDelivered", status=str(holds), reason=reason, message=message)

    current = own_mark(status)
    if current is None:
        return condition(True, Reason.DELIVERED, "the operator did not obtain this certificate: hooks hear of the next")
    told = {name: delivery for name, delivery in deliveries.items() if delivery.mark == current}
    for states, reason in _UNDELIVERED:
        if words := [
            f"{h.name}: {told[h.name].message}" for h in hooks if h.name in told and told[h.name].state in states
        ]:
            return condition(False, reason, "; ".join(words))
    if waiting := [h for h in hooks if h.name not in told]:
        names = ", ".join(h.name if _is_its_turn(h, status) else f"{h.name} (after the rollout)" for h in waiting)
        return condition(False, Reason.HOOK_PENDING, f"to be delivered: {names}")
    return condition(True, Reason.DELIVERED, f"{', '.join(h.name for h in hooks)} heard of the certificate")


_UNDELIVERED = (
    ((State.DENIED,), Reason.HOOK_DENIED),
    ((State.FAILING, State.REFUSED), Reason.HOOK_FAILING),
)
