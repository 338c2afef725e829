"""How is a certificate had from the CA: down the ladder of routes, one rung for each refusal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Protocol

from certrenewal.controller.cache import Key
from certrenewal.domain.authority import AuthorityView
from certrenewal.domain.decision import DURATION_TOLERANCE, Obtain, renew_only
from certrenewal.domain.observed import Observed
from certrenewal.domain.reasons import Reason
from certrenewal.domain.routes import Route, ladder
from certrenewal.stepca import keys
from certrenewal.stepca.authority import Authority, Issued
from certrenewal.stepca.errors import Refused, Unreachable

log = logging.getLogger(__name__)


class Authorities(Protocol):
    """What somebody needs who asks an authority for anything."""

    def view(self, name: str) -> AuthorityView | None:
        """What is known of an authority, None before it was first asked."""

    def use(self, name: str) -> Authority:
        """The authority itself, which its view calls ready."""

    def report(self, name: str, failure: Unreachable) -> None:
        """A call got no answer from the CA: no other may follow before a probe found it back."""


class Queues(Authorities, Protocol):
    """What a look needs beside: certificates are asked for in turn."""

    def knock(self, name: str, key: Key, urgency: float) -> bool:
        """Whether ``enter`` would let it in; if not, its key is called back."""

    def enter(self, name: str, key: Key, urgency: float) -> bool:
        """Whether a certificate may be asked for now; if not, its key is called back."""

    def leave(self, name: str, key: Key) -> None:
        """The authority answered, or did not."""

    def forget(self, key: Key) -> None:
        """Nothing is to be asked for this certificate any more."""

    def doubt(self, name: str) -> None:
        """The CA believes our tokens no longer: what is known of it may be out of date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obtained:
    """A certificate of ours, from the CA's answer to the status that tells of it."""

    issued: Issued
    reason: Reason
    duration: timedelta | None  # what was asked for; None: the CA's default
    replaces: str | None  # the fingerprint of the certificate that was there; None: there was none
    renew_now: str  # the request that is met with it, too; "" where there was none
    refused: tuple[tuple[Route, str], ...] = ()  # the routes tried before, with the CA's words


async def ask(
    observed: Observed,
    step: Obtain,
    *,
    authorities: Queues,
    require: Callable[[], None],
    clock: Callable[[], datetime],
) -> Obtained:
    """Ask by each route in turn until one is not refused; an AuthorityError tells why none gave a certificate."""
    routes = ladder(
        observed.leaf,
        anew=step.anew,
        rotation=step.rotation,
        can_sign=observed.authority.can_sign,
        now=clock(),
    )
    refused: list[tuple[Route, str]] = []
    for route in routes:
        require()
        try:
            issued, duration = await _by(route, authorities, observed, step, clock)
        except Refused as refusal:
            refused.append((route, str(refusal)))
            log.info("route refused", extra={"route": route.value, "status": refusal.status, "text": str(refusal)})
            if route is routes[-1]:
                if refusal.status == HTTPStatus.UNAUTHORIZED:
                    authorities.doubt(observed.authority.name)
                if not observed.authority.can_sign:
                    raise refusal.explained(renew_only(observed.authority.name)) from None
                raise
        except Unreachable as failure:
            if not failure.answered:
                authorities.report(observed.authority.name, failure)
            elif failure.status != HTTPStatus.TOO_MANY_REQUESTS:
                authorities.doubt(observed.authority.name)  # a proxy may answer for a CA that is down
            raise
        else:
            return Obtained(
                issued=issued,
                reason=step.finding.reason,
                duration=duration,
                replaces=observed.leaf.fingerprint if observed.leaf else None,
                renew_now=observed.renew_now,
                refused=tuple(refused),
            )
    raise Refused(403, "no route is left for this certificate")


async def _by(
    route: Route, authorities: Authorities, observed: Observed, step: Obtain, clock: Callable[[], datetime]
) -> tuple[Issued, timedelta | None]:
    """One route, and the duration that was asked for with it."""
    name = observed.authority.name
    if route is Route.SIGN:
        try:
            return await _sign(authorities, observed, step, clock)
        except Refused as refusal:
            if refusal.status != HTTPStatus.UNAUTHORIZED:
                raise
            # A CA that started after the token was made takes no older ones (its iat): one more, with a new token.
            return await _sign(authorities, observed, step, clock)
    held, now = observed.held, clock()
    assert held.chain is not None  # the ladder starts at a leaf and its key
    assert held.key is not None
    asked = observed.asked_duration or observed.spec.duration
    match route:
        case Route.RENEW_TOKEN:
            return await authorities.use(name).renew_by_token(held.chain, held.key, now=now), asked
        case Route.RENEW_MTLS:
            return await authorities.use(name).renew_by_mtls(held.chain, held.key, now=now), asked
        case Route.REKEY:
            key = await keys.generate(observed.key_algorithm)
            return await authorities.use(name).rekey(held.chain, held.key, key, now=now), asked


async def _sign(
    authorities: Authorities, observed: Observed, step: Obtain, clock: Callable[[], datetime]
) -> tuple[Issued, timedelta | None]:
    key = await keys.generate(observed.key_algorithm)
    authority = authorities.use(observed.authority.name)  # a key takes its time, and it may be another one by now
    duration, limit = step.duration, step.max_duration
    issued = await authority.sign(key, names=observed.names, duration=duration, now=clock())
    if duration is None and limit is not None and issued.chain.leaf.lifetime > limit + DURATION_TOLERANCE:
        # Nobody can ask step-ca for its default beforehand: where it is longer than the policy allows, ask again.
        issued = await authority.sign(key, names=observed.names, duration=limit, now=clock())
    return issued, duration
