"""What do we show the CA: one-time tokens that a provisioner signs, and renew tokens that a leaf's own key signs."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateSigningRequest

from certrenewal.domain.certificate import Chain, PrivateKey, jws_algorithm
from certrenewal.domain.names import Name
from certrenewal.stepca.provisioner import Provisioner

LIFETIME = timedelta(minutes=5)


def sign_token(
    provisioner: Provisioner,
    *,
    names: Sequence[Name],
    audience: str,
    root_fingerprint: str,
    csr: CertificateSigningRequest | None,
    now: datetime,
    lifetime: timedelta = LIFETIME,
) -> str:
    """A one-time token for ``/sign``, bound to the CSR where there is one already.

    The jti is random with 256 bits: step-ca stores it before it checks the signature, so that one who could guess
    it could burn the token. ``sha`` is for clients, ``cnf`` holds the CSR's SHA-256 (step-ca 0.27.3 and later).
    """
    claims = {
        "iss": provisioner.name,
        "sub": str(names[0]),
        "sans": [str(name) for name in names],
        "aud": audience,
        "sha": root_fingerprint,
        **({"cnf": {"x5rt#S256": _thumbprint(csr)}} if csr else {}),
        **_validity(now, lifetime),
    }
    return jwt.encode(claims, provisioner.key, jws_algorithm(provisioner.key), {"kid": provisioner.kid})


def revoke_token(provisioner: Provisioner, *, serial: str, audience: str, root_fingerprint: str, now: datetime) -> str:
    """A one-time token for ``/revoke``: its subject is the serial, in decimal digits."""
    claims = {
        "iss": provisioner.name,
        "sub": serial,
        "aud": audience,
        "sha": root_fingerprint,
        **_validity(now, LIFETIME),
    }
    return jwt.encode(claims, provisioner.key, jws_algorithm(provisioner.key), {"kid": provisioner.kid})


def _thumbprint(csr: CertificateSigningRequest) -> str:
    digest = hashlib.sha256(csr.public_bytes(Encoding.DER)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def renew_token(chain: Chain, key: PrivateKey, *, audience: str, now: datetime) -> str:
    """A bearer token for ``/renew``: the leaf's own key vouches for the chain in its header.

    step-ca looks for the chain under ``x5cInsecure`` where nobody vouches for it but the CA's own records.
    """
    claims = {"iss": "step-ca-client/1.0", "sub": chain.leaf.subject, "aud": audience, **_validity(now, LIFETIME)}
    return jwt.encode(claims, key, jws_algorithm(key), {"x5cInsecure": chain.x5c})


def _validity(now: datetime, lifetime: timedelta) -> dict[str, Any]:
    issued = int(now.timestamp())
    return {
        "iat": issued,
        "nbf": issued,
        "exp": issued + int(lifetime.total_seconds()),
        "jti": secrets.token_hex(32),
    }
