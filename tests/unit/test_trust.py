"""Guards: a root stays as long as a certificate leads to it, and nobody is believed whom no pin vouches for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certrenewal.domain.certificate import fingerprint
from certrenewal.domain.trust import Trust, describe, follow, read_trust
from tests.unit.builders import NOON, a_root

OLD, NEW, OTHER = (a_root(name).certificate for name in ("Old", "New", "Other"))
BOTH = tuple(sorted((OLD, NEW), key=fingerprint))


def followed(before: Trust, **changes: Any) -> Trust:
    """The trust of a CA that names NEW alone and is pinned by it, with one thing changed."""
    facts: dict[str, Any] = {"named": (NEW,), "pinned": (NEW,), "needed": set(), "now": NOON}
    return follow(before, **{**facts, **changes})


def test_a_new_root_is_trusted_beside_the_old_one() -> None:
    assert followed(Trust((OLD,), (OLD,)), named=BOTH, pinned=(OLD,)).roots == BOTH


@pytest.mark.parametrize(
    ("needed", "kept"), [({fingerprint(OLD)}, (OLD,)), (set(), ()), (None, (OLD,))], ids=["needed", "not", "unknown"]
)
def test_a_root_that_the_ca_forgot_stays_while_a_certificate_needs_it(
    needed: set[str] | None, kept: tuple[Any, ...]
) -> None:
    trust = followed(Trust(BOTH, (NEW,)), needed=needed)

    assert trust.retained == kept
    assert set(trust.roots) == {NEW, *kept}


def test_a_retained_root_leaves_with_the_last_certificate() -> None:
    retaining = Trust((NEW,), (NEW,), (OLD,))

    assert followed(retaining, needed={fingerprint(OLD)}).retained == (OLD,)
    assert followed(retaining, needed={fingerprint(NEW)}).retained == ()


def test_a_root_that_has_ended_is_of_no_use() -> None:
    late = OLD.not_valid_after_utc + timedelta(seconds=1)

    assert followed(Trust(BOTH, (NEW,)), needed={fingerprint(OLD)}, now=late).retained == ()


def test_a_pin_that_was_never_named_begins_anew() -> None:
    """Another CA under the same object: what verified the old one's certificates must not verify the new one's."""
    trust = followed(Trust((OLD,), (OLD,)), needed={fingerprint(OLD)})

    assert trust == Trust((NEW,), (NEW,))


def test_a_pin_that_the_ca_does_not_name_is_trusted_all_the_same() -> None:
    """As the root of a proxy in between is."""
    first = followed(Trust(), named=(NEW,), pinned=(OTHER,))

    assert set(first.roots) == {NEW, OTHER}
    assert followed(first, named=(NEW,), pinned=(OTHER,)) == first


def test_the_next_process_knows_what_the_last_one_knew() -> None:
    trust = Trust((NEW,), (NEW,), (OLD,))

    read = read_trust({"roots": describe(trust)})

    assert (read.named, read.retained) == ((NEW,), (OLD,))


def test_what_cannot_be_read_of_a_status_counts_as_absent() -> None:
    assert read_trust({}) == Trust()
    assert read_trust({"roots": [{"fingerprint": "ab", "named": True}, {"pem": "no PEM"}]}) == Trust()


def test_a_root_whose_name_cannot_be_read_is_described_all_the_same() -> None:
    der = a_root().certificate.public_bytes(serialization.Encoding.DER).replace(b"Root", b"R\xff\xfft")
    odd = x509.load_der_x509_certificate(der)

    (entry,) = describe(Trust(named=(odd,)))

    assert entry["subject"] == "somebody whose name cannot be read"
