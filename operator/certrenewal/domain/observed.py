"""What is seen of one certificate before anything is decided: the wish, the Secret, the authority."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509

from certrenewal.domain.authority import AuthorityView
from certrenewal.domain.certificate import (
    Chain,
    Leaf,
    Malformed,
    PrivateKey,
    key_fits,
    load_certificates,
    load_key,
    parse_chain,
)
from certrenewal.domain.keys import KeyAlgorithm
from certrenewal.domain.names import Name
from certrenewal.domain.outputs import Outputs
from certrenewal.domain.policy import Asker
from certrenewal.domain.spec import Spec
from certrenewal.domain.status import Recorded
from certrenewal.domain.timing import Plan, plan_renewal


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a Secret holds, read as far as it can be read. The key stays out of the repr."""

    chain: Chain | None = None
    key: PrivateKey | None = None
    fault: str | None = None
    roots: bytes = b""

    def __repr__(self) -> str:
        return f"Held(chain={self.chain and self.chain.leaf.serial!r}, fault={self.fault!r})"


def read_held(crt: bytes, key: bytes, roots: bytes) -> Held:
    """Read chain and key of a Secret; a fault says what cannot be read, and the rest is still there."""
    chain: Chain | None = None
    private: PrivateKey | None = None
    faults: list[str] = []
    try:
        chain = parse_chain(crt) if crt else None
    except Malformed as malformed:
        faults.append(f"certificate: {malformed}")
    try:
        private = load_key(key) if key else None
    except Malformed as malformed:
        faults.append(f"private key: {malformed}")
    return Held(chain=chain, key=private, fault="; ".join(faults) or None, roots=roots)


@dataclass(frozen=True, kw_only=True)  # without slots, for the properties that are kept
class Observed:
    """All that a decision about one certificate rests on."""

    namespace: str
    uid: str
    spec: Spec
    held: Held
    authority: AuthorityView
    asker: Asker
    recorded: Recorded = field(default_factory=lambda: Recorded({}))
    asked_duration: timedelta | None = None
    obtained: datetime | None = None  # when the certificate at hand was had from the CA; None: not by us
    immutable: bool = False
    renew_now: str = ""  # the value of the annotation as it was seen, so that a later one is not taken for honoured
    renew_requested: bool = False
    revoke_now: str = ""
    revoke_requested: bool = False
    revoke_met: bool = False  # the Secret has another key for it, which status does not tell yet
    companion: str | None = None  # a workload that will be restarted for another certificate of its
    outputs: Outputs | None = None  # None: not looked at
    vouched: bool = False  # status says that just this Secret was found good under just these roots
    together: float = 0.0  # the share of its life within which a certificate is renewed with one of the same workload

    @functools.cached_property
    def leaf(self) -> Leaf | None:
        """The certificate that the Secret holds."""
        return self.held.chain.leaf if self.held.chain else None

    @functools.cached_property
    def root(self) -> x509.Certificate | None:
        """The root of the authority that the chain at hand leads to."""
        return self.held.chain.root(self.authority.roots) if self.held.chain else None

    @property
    def is_trusted(self) -> bool:
        """Whether the chain at hand leads to a root of the authority."""
        return self.held.chain is not None and (self.vouched or self.root is not None)

    @property
    def is_as_told(self) -> bool:
        """Whether the Secret holds the very pair that status tells of: who runs an older one can be brought to it."""
        held, leaf = self.held, self.leaf
        return (
            held.fault is None
            and held.key is not None
            and leaf is not None
            and leaf.fingerprint == self.recorded.fingerprint
            and key_fits(held.key, leaf)
        )

    @property
    def names(self) -> tuple[Name, ...]:
        """The names wanted: those asked for, else those of the certificate at hand, else those last seen."""
        return self.spec.names or (self.leaf.names if self.leaf else ()) or self.recorded.names

    @property
    def key_algorithm(self) -> KeyAlgorithm:
        """The kind of key wanted: the one asked for, else that of the key at hand."""
        return self.spec.key_algorithm or (self.leaf.algorithm if self.leaf else None) or KeyAlgorithm.EC_P256

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """The roots that a trust store is to hold: the authority's, or those at hand while they are not known."""
        if self.authority.roots:
            return self.authority.roots
        try:
            return tuple(load_certificates(self.held.roots))
        except Malformed:
            return ()

    def plan(self, leaf: Leaf, *, obtained: datetime | None) -> Plan:
        """When ``leaf`` is due."""
        return plan_renewal(
            leaf.not_before,
            leaf.not_after,
            renew_before=self.spec.renew_before,
            uid=self.uid,
            serial=leaf.serial,
            obtained=obtained,
        )
