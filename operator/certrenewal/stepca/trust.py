"""Whom do we believe to be the CA: the root by its fingerprint, then the bundle that the CA itself names."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from cryptography import x509

from certrenewal.domain.authority import AuthoritySpec
from certrenewal.domain.certificate import Malformed, fingerprint, load_certificates
from certrenewal.domain.reasons import Reason
from certrenewal.stepca.errors import AuthorityError, BadAnswer, NotReady, Refused
from certrenewal.stepca.transport import Transport


async def pinned_roots(spec: AuthoritySpec) -> tuple[x509.Certificate, ...]:
    """The roots that the spec pins: those of its bundle, or the one whose fingerprint it names.

    The fetch of that one root is the only connection that verifies nothing; its answer is worth what its
    fingerprint is worth. NotReady says that the fingerprint differs, Unreachable that nobody answered.
    """
    if spec.ca_bundle:
        return spec.ca_bundle
    assert spec.fingerprint is not None  # the CRD asks for exactly one of the two
    async with Transport(spec.url, roots=None) as transport:
        try:
            answer = await transport.call("GET", f"/root/{spec.fingerprint}")
        except Refused as refused:
            if refused.status == 404:
                raise _unknown_root(spec) from None
            raise
    root = _certificates([answer.get("ca")])[0]
    if not hmac.compare_digest(fingerprint(root), spec.fingerprint):
        raise _unknown_root(spec)
    return (root,)


async def fetch_roots(transport: Transport) -> tuple[x509.Certificate, ...]:
    """The roots that the CA wants its clients to trust: its own, and those of its federation."""
    answer = await transport.call("GET", "/roots")
    return united(_certificates(answer.get("crts")), await _optional(transport, "/federation"))


async def fetch_intermediates(transport: Transport) -> tuple[x509.Certificate, ...]:
    """The intermediates that sign now; none where the CA does not tell (step-ca before 0.27.3)."""
    return tuple(await _optional(transport, "/intermediates"))


def united(*bundles: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """All of them, each once, in an order that does not depend on the answer's."""
    return tuple(sorted({root for bundle in bundles for root in bundle}, key=fingerprint))


async def _optional(transport: Transport, path: str) -> list[x509.Certificate]:
    """Certificates that not every CA has to tell of."""
    try:
        answer = await transport.call("GET", path)
    except AuthorityError as failure:
        if failure.status in (HTTPStatus.NOT_FOUND, HTTPStatus.NOT_IMPLEMENTED):  # it does not know of any
            return []
        raise
    return _certificates(answer.get("crts"))


def _certificates(pems: Any) -> list[x509.Certificate]:
    try:
        found = load_certificates("\n".join(pems).encode())
    except (Malformed, TypeError):
        raise BadAnswer("the CA answered with roots that cannot be read") from None
    if not found:
        raise BadAnswer("the CA answered with no root")
    return found


def no_longer_named(spec: AuthoritySpec) -> NotReady:
    """The CA is the one that was trusted, and has left the pinned root behind."""
    return NotReady(
        Reason.FINGERPRINT_MISMATCH,
        f"{spec.url} no longer names the root that is pinned: pin the one that it names now, after comparing it with "
        "`step certificate fingerprint root_ca.crt` at the CA",
    )


def _unknown_root(spec: AuthoritySpec) -> NotReady:
    return NotReady(
        Reason.FINGERPRINT_MISMATCH,
        f"{spec.url} has no root with fingerprint {spec.fingerprint}: compare spec.fingerprint with "
        "`step certificate fingerprint root_ca.crt` at the CA",
    )
