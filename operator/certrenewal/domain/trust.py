"""Which roots does an authority stand for: those that it names, and those gone that a certificate still leads to?

A root comes in beside the old one, certificates follow at their renewals, and the old one goes: that is a rotation.
The CA may forget the old root before the last certificate has followed; what verifies that certificate has not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509

from certrenewal.domain.certificate import Malformed, dump_certificates, fingerprint, load_certificates, subject_of
from certrenewal.domain.status import Status, timestamp

Roots = tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class Trust:
    """The roots of one authority."""

    named: Roots = ()  # by the CA, over a connection that was trusted
    pinned: Roots = ()  # by the administrator
    retained: Roots = ()  # named once, and still needed

    @property
    def roots(self) -> Roots:
        """All of them, each once, in an order of its own."""
        return tuple(sorted({*self.named, *self.pinned, *self.retained}, key=fingerprint))


def follow(before: Trust, *, named: Roots, pinned: Roots, needed: Collection[str] | None, now: datetime) -> Trust:
    """The trust after the CA named its roots anew.

    ``needed`` are the fingerprints of the roots that managed certificates lead to, None where that is not known yet.
    Where the pin is none of the roots known before, this is another CA, and nothing is kept.
    """
    known = set(before.roots)
    if not known & set(pinned):
        return Trust(named, pinned)
    gone = known - {*named, *pinned}
    retained = [
        root for root in gone if root.not_valid_after_utc > now and (needed is None or fingerprint(root) in needed)
    ]
    return Trust(named, pinned, tuple(sorted(retained, key=fingerprint)))


def describe(trust: Trust) -> list[dict[str, Any]]:
    """``status.roots`` of a CertAuthority; with the PEM, as a root that the CA forgot cannot be fetched again."""
    return [
        {
            "fingerprint": fingerprint(root),
            "subject": subject_of(root),
            "notAfter": timestamp(root.not_valid_after_utc),
            "pem": dump_certificates([root]).decode(),
            **({"named": True} if root in trust.named else {}),
        }
        for root in trust.roots
    ]


def read_trust(status: Status) -> Trust:
    """What an earlier process knew, from ``status.roots``; what cannot be read counts as absent."""
    entries = status.get("roots") or ()
    return Trust(
        named=_loaded(entry for entry in entries if entry.get("named")),
        retained=_loaded(entry for entry in entries if not entry.get("named")),
    )


def _loaded(entries: Iterable[Mapping[str, Any]]) -> Roots:
    found: list[x509.Certificate] = []
    for entry in entries:
        try:
            found += load_certificates(str(entry.get("pem", "")).encode())
        except Malformed:
            continue
    return tuple(found)
