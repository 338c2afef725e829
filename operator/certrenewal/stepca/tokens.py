"""What do we show the CA: one-time tokens that a provisioner signs, and renew tokens that a leaf's own key signs."""

from __future__ import annotations

import base64
import hashlib
import secrets
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateSigningRequest
from joserfc import jwk, jwt
from joserfc.errors import SecurityWarning
from joserfc.jws import JWSRegistry
from joserfc.registry import HeaderParameter

from certrenewal.domain.certificate import JWS_BY_CURVE, Chain, PrivateKey
from certrenewal.domain.names import Name
from certrenewal.stepca.provisioner import Provisioner

LIFETIME = timedelta(minutes=5)

# step-ca looks for the chain under this name where nobody vouches for it but the CA's own records.
_RENEW_HEADERS = JWSRegistry(
    header_registry={"x5cInsecure": HeaderParameter("X.509 Certificate Chain", "list[str]")},
    algorithms=["ES256", "ES384", "ES512", "RS256", "EdDSA"],
)


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
    header = {"alg": provisioner.algorithm, "kid": provisioner.kid}
    return jwt.encode(header, claims, provisioner.key, algorithms=[provisioner.algorithm])


def revoke_token(provisioner: Provisioner, *, serial: str, audience: str, root_fingerprint: str, now: datetime) -> str:
    """A one-time token for ``/revoke``: its subject is the serial, in decimal digits."""
    claims = {
        "iss": provisioner.name,
        "sub": serial,
        "aud": audience,
        "sha": root_fingerprint,
        **_validity(now, LIFETIME),
    }
    header = {"alg": provisioner.algorithm, "kid": provisioner.kid}
    return jwt.encode(header, claims, provisioner.key, algorithms=[provisioner.algorithm])


def _thumbprint(csr: CertificateSigningRequest) -> str:
    digest = hashlib.sha256(csr.public_bytes(Encoding.DER)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def renew_token(chain: Chain, key: PrivateKey, *, audience: str, now: datetime) -> str:
    """A bearer token for ``/renew``: the leaf's own key vouches for the chain in its header."""
    signing_key, algorithm = _own_key(key)
    claims = {"iss": "step-ca-client/1.0", "sub": chain.leaf.subject, "aud": audience, **_validity(now, LIFETIME)}
    header = {"alg": algorithm, "x5cInsecure": list(chain.x5c)}
    if algorithm != "EdDSA":
        return jwt.encode(header, claims, signing_key, registry=_RENEW_HEADERS)
    # step-ca knows Ed25519 signatures by this name alone, which RFC 9864 has since deprecated.
    with warnings.catch_warnings(action="ignore", category=SecurityWarning):
        return jwt.encode(header, claims, signing_key, registry=_RENEW_HEADERS)


def _validity(now: datetime, lifetime: timedelta) -> dict[str, Any]:
    issued = int(now.timestamp())
    return {
        "iat": issued,
        "nbf": issued,
        "exp": issued + int(lifetime.total_seconds()),
        "jti": secrets.token_hex(32),
    }


def _own_key(key: PrivateKey) -> tuple[jwk.ECKey | jwk.RSAKey | jwk.OKPKey, str]:
    match key:
        case ec.EllipticCurvePrivateKey(curve=curve):
            return _ECKey(key, key), JWS_BY_CURVE[curve.name]
        case rsa.RSAPrivateKey():
            return _RSAKey(key, key), "RS256"
        case ed25519.Ed25519PrivateKey():
            return _OKPKey(key, key), "EdDSA"


class _Unspelled:
    """A key with no parameters of a JWK: to look for ``use`` and ``alg``, joserfc would spell out the private key."""

    key_type: ClassVar[str]

    @property
    def dict_value(self) -> dict[str, Any]:
        return {"kty": self.key_type}


class _ECKey(_Unspelled, jwk.ECKey):
    pass


class _RSAKey(_Unspelled, jwk.RSAKey):
    pass


class _OKPKey(_Unspelled, jwk.OKPKey):
    pass
