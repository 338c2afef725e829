"""What is the next step for the one-time token in a Secret, for one who keeps the key (contract §8)?

The status tells of the last token: when it ends, for which names it is, and its digest as long as it lies in the
Secret. A token itself is nowhere but in the Secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from certrenewal.domain import policy
from certrenewal.domain.authority import AuthorityView
from certrenewal.domain.decision import Finding, Stop
from certrenewal.domain.names import Name, parse_names
from certrenewal.domain.policy import UNBOUNDED, Asker
from certrenewal.domain.reasons import Reason
from certrenewal.domain.spec import Spec
from certrenewal.domain.status import Status, moment_of, timestamp

# The keys of the Secret.
TOKEN, CA_URL, FINGERPRINT, EXPIRES_AT = "token", "ca-url", "fingerprint", "expires-at"
DATA_KEYS = (TOKEN, CA_URL, FINGERPRINT, EXPIRES_AT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """The last token that was laid into the Secret."""

    digest: str  # "" where it does not lie there any more
    authority: str
    names: tuple[Name, ...]
    issued: datetime
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that a decision about one token rests on."""

    spec: Spec
    authority: AuthorityView
    asker: Asker
    laid: Laid | None
    held: str  # the digest of what lies under `token`, "" where nothing does
    immutable: bool
    requested: bool  # token-now has a new value

    @property
    def lies(self) -> bool:
        """Whether the last token was not taken away yet."""
        return self.laid is not None and self.laid.digest != ""

    def is_good(self, now: datetime) -> bool:
        """Whether a token lies there that can be used, and is for the names that are wanted."""
        laid = self.laid
        if laid is None or not self.lies or self.held != laid.digest or now >= laid.expires:
            return False
        return set(laid.names) == set(self.spec.names) and laid.authority == self.spec.authority


@dataclass(frozen=True, slots=True)
class Keep:
    """Nothing to do; the token that lies there ends at ``until``, None where there is none any more."""

    until: datetime | None


@dataclass(frozen=True, slots=True)
class Mint:
    """A new token takes the place of the last one, which is burnt."""

    need: Finding


@dataclass(frozen=True, slots=True)
class Expire:
    """The token has ended and is taken away."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The token may not lie there any more: it is burnt and taken away."""

    why: Finding


Step = Keep | Mint | Expire | Withdraw | Stop


def decide(case: Case, now: datetime) -> Step:
    """The one next step."""
    if case.laid and case.lies and now >= case.laid.expires:
        return Stop(_immutable(case)) if case.immutable else Expire()
    need, stop = _need(case), _stop(case)
    if stop and stop.reason is Reason.NAME_DENIED and case.lies:
        return Withdraw(stop)
    if need is None:
        return Keep(case.laid.expires if case.laid and case.lies else None)
    return Stop(stop) if stop else Mint(need)


def _need(case: Case) -> Finding | None:
    """Why a new token is wanted."""
    laid, spec = case.laid, case.spec
    if laid is None:
        return Finding(Reason.MISSING, f"Secret {spec.secret_name} has no token yet")
    if case.requested:
        return Finding(Reason.TOKEN_REQUESTED, "token-now has a new value")
    if not case.lies:
        return None  # it ended, and nobody asked for another
    if set(laid.names) != set(spec.names):
        return Finding(Reason.NAMES_CHANGED, f"the token is for {', '.join(map(str, laid.names))}")
    if laid.authority != spec.authority:
        return Finding(Reason.ISSUER_CHANGED, f"the token is for CertAuthority {laid.authority}")
    if case.held != laid.digest:
        return Finding(Reason.MISSING, f"Secret {spec.secret_name} does not hold the token any more")
    if case.authority.recovered and laid.issued < case.authority.recovered:
        return Finding(Reason.AUTHORITY_RECOVERED, "the CA was down, and takes no older token if it was restarted")
    return None


def _stop(case: Case) -> Finding | None:
    """Why a token cannot be had now."""
    if case.immutable:
        return _immutable(case)
    if not case.spec.names:
        return Finding(
            Reason.INVALID_SPEC,
            "spec.names (annotation certrenewal.dev/names) is empty: name at least one DNS name, IP, e-mail or URI",
        )
    return unavailable(case.authority) or denial(case.spec.names, case.asker, case.authority)


def _immutable(case: Case) -> Finding:
    return Finding(
        Reason.IMMUTABLE,
        f"Secret {case.spec.secret_name} has immutable: true: delete it and create it again without",
    )


def unavailable(authority: AuthorityView) -> Finding | None:
    """Why no token of this authority can be had now."""
    if not authority.ready:
        return Finding(Reason(authority.reason), authority.message)
    if not authority.can_sign:
        return Finding(
            Reason.AUTHORITY_NOT_READY,
            f"CertAuthority {authority.name} has no spec.provisioner: it renews, and signs no token",
        )
    return None


def denial(names: tuple[Name, ...], asker: Asker, authority: AuthorityView) -> Finding | None:
    """Why these names may not be had. Its user chooses the lifetime, up to what the provisioner signs at all."""

    def judged(longest: timedelta) -> str | None:
        found = policy.judge(names, longest, asker=asker, policy=authority.policy, authority=authority.name)
        return found.denial

    if authority.longest is not None and judged(authority.longest) is None:
        return None
    words = judged(UNBOUNDED)
    return Finding(Reason.NAME_DENIED, words) if words else None


def digest(token: bytes) -> str:
    """By which a token is recognised without being known."""
    return hashlib.sha256(token).hexdigest() if token else ""


# What a status has of a token; all else in it is about a certificate that is wanted no longer.
_OF_TOKENS = ("observedGeneration", "secretName", "conditions", "failure", "token", "tokenNow")


def of_tokens(status: Status) -> Status:
    """What of a status stays where a token is wanted."""
    kept = {key: value for key, value in status.items() if key in _OF_TOKENS}
    if "conditions" in kept:
        kept["conditions"] = [c for c in kept["conditions"] if c["type"] == "Ready"]
    return kept


def without_token(status: Status) -> Status:
    """The status as if there had never been a token."""
    return {key: value for key, value in status.items() if key not in ("token", "tokenNow", "conditions")}


def with_laid(status: Status, laid: Laid) -> Status:
    """The status with the last token."""
    return {**status, "token": _described(laid)}


def _described(laid: Laid) -> dict[str, Any]:
    return {
        **({"sha256": laid.digest} if laid.digest else {}),
        "authority": laid.authority,
        "names": [str(name) for name in laid.names],
        "issuedAt": timestamp(laid.issued),
        "expiresAt": timestamp(laid.expires),
    }


def read_laid(status: Status) -> Laid | None:
    """Read a status back; what cannot be read counts as absent."""
    token: Mapping[str, Any] = status.get("token") or {}
    issued, expires = moment_of(token.get("issuedAt")), moment_of(token.get("expiresAt"))
    if issued is None or expires is None:
        return None
    try:
        names = parse_names(token.get("names") or ())
    except ValueError:
        names = ()
    return Laid(
        digest=token.get("sha256", ""),
        authority=token.get("authority", ""),
        names=names,
        issued=issued,
        expires=expires,
    )
