"""What is the next step for one certificate, and why: an ordered table of small checks.

The first check that fires gives both the step and the reason that users read, so that status and action cannot
disagree. Checks come in two tables: what the certificate *needs*, and what *stops* that need from being met.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from certrenewal.domain import policy
from certrenewal.domain.certificate import Chain, key_fits
from certrenewal.domain.durations import format_duration
from certrenewal.domain.keys import KeyRotation
from certrenewal.domain.names import InvalidName, Name, parse_name
from certrenewal.domain.observed import Observed
from certrenewal.domain.outputs import changes, content_of
from certrenewal.domain.reasons import Reason
from certrenewal.domain.timing import may_follow

# step-ca backdates by a minute unless told otherwise, and issues in whole seconds.
DURATION_TOLERANCE = timedelta(minutes=1, seconds=2)


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that fired."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do before ``due``."""

    due: datetime


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing can be done until somebody changes something."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class Repair:
    """What lies around a good leaf is written again, without the CA: roots, other forms and, if broken, the chain."""

    finding: Finding
    chain: Chain | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Obtain:
    """A certificate is asked of the CA: anew, or by renewing the one at hand."""

    finding: Finding
    anew: bool
    rotation: KeyRotation = KeyRotation.NEVER
    duration: timedelta | None
    max_duration: timedelta | None


Step = Rest | Stop | Repair | Obtain


def decide(observed: Observed, now: datetime) -> Step:
    """The one next step."""
    need = _first(_NEEDS, observed, now)
    if need is None:
        assert observed.leaf is not None  # a missing certificate is the first need
        return Rest(observed.plan(observed.leaf, obtained=observed.obtained).due)
    if need.reason is Reason.FORMATS_CHANGED:
        stop = immutable(observed, now)
        return Stop(stop) if stop else Repair(need)
    is_repair = need.reason in (Reason.ROOTS_CHANGED, Reason.CHAIN_BROKEN)
    if stop := _first(_REPAIR_STOPS if is_repair else _STOPS, observed, now):
        return Stop(stop)
    if need.reason is Reason.ROOTS_CHANGED:
        return Repair(need)
    if need.reason is Reason.CHAIN_BROKEN:
        return Repair(need, _completed(observed))
    verdict = _verdict(observed)
    if verdict.denial:
        return Stop(Finding(Reason.NAME_DENIED, verdict.denial))
    return Obtain(
        finding=need,
        anew=_must_sign(observed, need, verdict.max_duration),
        rotation=KeyRotation.ALWAYS if need.reason is Reason.REVOCATION_REQUESTED else observed.spec.key_rotation,
        duration=observed.spec.duration,
        max_duration=verdict.max_duration,
    )


def is_good(observed: Observed, now: datetime) -> Finding | None:
    """Why the Secret does not hold a valid certificate that fits the spec; None where it does."""
    return _first(_FAULTS, observed, now)


_Check = Callable[[Observed, datetime], Finding | None]


def _first(table: tuple[_Check, ...], observed: Observed, now: datetime) -> Finding | None:
    for check in table:
        if finding := check(observed, now):
            return finding
    return None


def missing(observed: Observed, _: datetime) -> Finding | None:
    """The Secret holds no certificate, or no key."""
    held = observed.held
    if held.fault is None and (held.chain is None or held.key is None):
        what = "certificate" if held.chain is None else "private key"
        return Finding(Reason.MISSING, f"Secret {observed.spec.secret_name} holds no {what}")
    return None


def malformed(observed: Observed, _: datetime) -> Finding | None:
    """The Secret holds something that cannot be read."""
    if observed.held.fault is not None:
        return Finding(Reason.MALFORMED, f"Secret {observed.spec.secret_name}: {observed.held.fault}")
    return None


def key_mismatch(observed: Observed, _: datetime) -> Finding | None:
    """The key belongs to another certificate."""
    held = observed.held
    if held.chain and held.key and not key_fits(held.key, held.chain.leaf):
        return Finding(Reason.KEY_MISMATCH, f"the private key in Secret {observed.spec.secret_name} is another's")
    return None


def chain_broken(observed: Observed, _: datetime) -> Finding | None:
    """The leaf is the authority's, but what follows it does not lead to a root."""
    chain, roots = observed.held.chain, observed.authority.roots
    if chain and roots and not observed.is_trusted and _completed(observed):
        return Finding(
            Reason.CHAIN_BROKEN, f"{observed.spec.data_keys.crt} lacks the CA certificate that issued the leaf"
        )
    return None


def _completed(observed: Observed) -> Chain | None:
    """The chain with the authority's intermediate, where that makes it lead to a root."""
    if observed.held.chain is None:
        return None
    chain = observed.held.chain.completed(observed.authority.intermediates)
    return chain if chain.holds(observed.authority.roots) else None


def issuer_changed(observed: Observed, _: datetime) -> Finding | None:
    """The chain does not lead to a root of the authority. Says nothing before the roots are known."""
    chain, roots = observed.held.chain, observed.authority.roots
    if chain and roots and not observed.is_trusted:
        return Finding(
            Reason.ISSUER_CHANGED,
            f"the certificate was issued by {chain.leaf.issuer}, not by authority {observed.authority.name}",
        )
    return None


def names_changed(observed: Observed, _: datetime) -> Finding | None:
    """Other names are asked for than the certificate carries. Order and case do not count."""
    leaf, wanted = observed.leaf, set(observed.spec.names)
    if leaf and wanted and wanted != set(leaf.names):
        return Finding(Reason.NAMES_CHANGED, f"the certificate carries {_listed(leaf.names)}")
    return None


def key_changed(observed: Observed, _: datetime) -> Finding | None:
    """Another kind of key is asked for."""
    leaf, wanted = observed.leaf, observed.spec.key_algorithm
    if leaf and wanted and wanted is not leaf.algorithm:
        return Finding(Reason.KEY_CHANGED, f"{wanted} is asked for, the key is {leaf.algorithm or 'of another kind'}")
    return None


def duration_changed(observed: Observed, _: datetime) -> Finding | None:
    """Another duration is asked for than when the certificate was issued."""
    leaf, wanted, asked = observed.leaf, observed.spec.duration, observed.asked_duration
    if leaf is None or wanted is None or wanted == asked:
        return None
    if asked is None and abs(leaf.lifetime - wanted) <= DURATION_TOLERANCE:
        return None
    return Finding(
        Reason.DURATION_CHANGED,
        f"{format_duration(wanted)} is asked for, the certificate lives {format_duration(leaf.lifetime)}",
    )


def expired(observed: Observed, now: datetime) -> Finding | None:
    """The certificate has ended."""
    if observed.leaf and now >= observed.leaf.not_after:
        return Finding(Reason.EXPIRED, f"the certificate expired at {observed.leaf.not_after.isoformat()}")
    return None


def renewal_requested(observed: Observed, _: datetime) -> Finding | None:
    """The renew-now annotation has a new value."""
    return Finding(Reason.RENEWAL_REQUESTED, "renew-now has a new value") if observed.renew_requested else None


def revocation_requested(observed: Observed, _: datetime) -> Finding | None:
    """The revoke-now annotation has a new value: the key may be in other hands."""
    if not observed.revoke_requested:
        return None
    return Finding(Reason.REVOCATION_REQUESTED, "revoke-now has a new value: another key is made")


def renewal_due(observed: Observed, now: datetime) -> Finding | None:
    """The planned time has come."""
    if observed.leaf is None:
        return None
    due = observed.plan(observed.leaf, obtained=observed.obtained).due
    if now < due:
        return None
    return Finding(Reason.RENEWAL_DUE, f"due since {due.isoformat()}")


def sibling_renewed(observed: Observed, now: datetime) -> Finding | None:
    """It is nearly due, and a workload that uses it is about to be restarted for another certificate."""
    leaf, companion = observed.leaf, observed.companion
    if leaf is None or companion is None:
        return None
    due = observed.plan(leaf, obtained=observed.obtained).due
    if not may_follow(leaf.not_before, leaf.not_after, due, share=observed.together, now=now):
        return None
    return Finding(
        Reason.SIBLING_RENEWED, f"{companion} is restarted for another certificate, and this one is due soon"
    )


def roots_changed(observed: Observed, _: datetime) -> Finding | None:
    """The roots beside the certificate are not the authority's."""
    if observed.authority.roots and observed.held.roots != observed.authority.bundle:
        return Finding(Reason.ROOTS_CHANGED, f"{observed.spec.data_keys.ca} differs from the authority's roots")
    return None


def formats_changed(observed: Observed, _: datetime) -> Finding | None:
    """The other forms do not hold the pair, or one lies there that is no longer asked for."""
    held, outputs = observed.held, observed.outputs
    if held.chain is None or held.key is None or outputs is None:
        return None
    content = content_of(observed.spec, outputs, held.chain, held.key, observed.trusted)
    if changed := changes(observed.spec, outputs, content):
        return Finding(Reason.FORMATS_CHANGED, f"{', '.join(sorted(changed))} does not hold what is asked for")
    return None


_MISFITS: tuple[_Check, ...] = (
    missing,
    malformed,
    key_mismatch,
    chain_broken,
    issuer_changed,
    names_changed,
    key_changed,
    duration_changed,
)
_FAULTS: tuple[_Check, ...] = (*_MISFITS, expired)
_NEEDS: tuple[_Check, ...] = (
    *_MISFITS,
    revocation_requested,  # an expired certificate may be renewed with its key, and that is not to be used any more
    expired,
    formats_changed,
    renewal_requested,
    renewal_due,
    sibling_renewed,
    roots_changed,
)


def nameless(observed: Observed, _: datetime) -> Finding | None:
    """Nothing says which names the certificate should carry."""
    if observed.names:
        return None
    return Finding(
        Reason.INVALID_SPEC,
        f"spec.names (annotation certrenewal.dev/names) is empty and Secret {observed.spec.secret_name} holds no "
        "certificate to take names from: name at least one DNS name, IP, e-mail or URI",
    )


def misnamed(observed: Observed, _: datetime) -> Finding | None:
    """The names are those of a certificate that anybody may have made, and one of them is no name."""
    if observed.spec.names:
        return None  # they were read already
    for name in observed.names:
        try:
            if parse_name(name.value) == name:
                continue
            refusal = f"{name.value!r} is no {name.kind}"
        except InvalidName as invalid:
            refusal = str(invalid)
        return Finding(
            Reason.INVALID_SPEC,
            f"the certificate in Secret {observed.spec.secret_name} carries what cannot be asked for: {refusal}. Write "
            "the names that are wanted into spec.names (annotation certrenewal.dev/names)",
        )
    return None


def immutable(observed: Observed, _: datetime) -> Finding | None:
    """The Secret cannot be written."""
    if observed.immutable:
        return Finding(
            Reason.IMMUTABLE,
            f"Secret {observed.spec.secret_name} has immutable: true: delete it and create it again without",
        )
    return None


def authority_not_ready(observed: Observed, _: datetime) -> Finding | None:
    """The authority is not known, not trusted yet, or has a fault of its own."""
    authority = observed.authority
    if authority.ready:
        return None
    return Finding(Reason(authority.reason), authority.message)


def cannot_sign(observed: Observed, now: datetime) -> Finding | None:
    """A new certificate is needed and the authority is renew-only."""
    if observed.authority.can_sign:
        return None
    need = _first(_NEEDS, observed, now)
    if need is None or not _must_sign(observed, need, _verdict(observed).max_duration):
        return None
    return Finding(
        Reason.AUTHORITY_NOT_READY,
        f"{need.message}: {renew_only(observed.authority.name)}",
    )


def renew_only(authority: str) -> str:
    """What an authority without a provisioner cannot do, and what would help."""
    return (
        f"that takes a new certificate, and CertAuthority {authority} has no spec.provisioner, so it can only renew: "
        "name one, or put a valid certificate into the Secret"
    )


_STOPS: tuple[_Check, ...] = (immutable, nameless, misnamed, authority_not_ready, cannot_sign)
_REPAIR_STOPS: tuple[_Check, ...] = (immutable, authority_not_ready)  # the CA is asked for nothing


def _verdict(observed: Observed) -> policy.Verdict:
    return policy.judge(
        observed.names,
        observed.spec.duration,
        asker=observed.asker,
        policy=observed.authority.policy,
        authority=observed.authority.name,
    )


# What a renewal of the certificate at hand, or no certificate at all, can give.
_BY_RENEWAL = frozenset(
    {
        Reason.RENEWAL_DUE,
        Reason.RENEWAL_REQUESTED,
        Reason.SIBLING_RENEWED,
        Reason.EXPIRED,
        Reason.CHAIN_BROKEN,
        Reason.ROOTS_CHANGED,
    }
)


def _must_sign(observed: Observed, need: Finding, max_duration: timedelta | None) -> bool:
    """Whether renewing the certificate at hand cannot give what is wanted."""
    if need.reason is Reason.REVOCATION_REQUESTED:
        return observed.authority.can_sign  # a rekey by the certificate itself gives another key too
    if need.reason not in _BY_RENEWAL:
        return True
    leaf = observed.leaf
    if leaf is None or (need.reason is Reason.EXPIRED and not observed.authority.renew_after_expiry):
        return True
    if leaf.unjudged:
        return True  # a renewal would carry on what no rule was asked about
    if max_duration is not None and leaf.lifetime > max_duration + DURATION_TOLERANCE:
        return True
    return observed.spec.key_rotation is KeyRotation.ALWAYS and observed.authority.can_sign


def _listed(names: tuple[Name, ...]) -> str:
    return ", ".join(map(str, names)) or "no name"
