"""A leaf's own key vouches for it in a token, whatever kind of key that is."""

from __future__ import annotations

import warnings

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwk, jws

from certrenewal.domain.certificate import PrivateKey, dump_certificates, dump_key, parse_chain
from certrenewal.domain.keys import KeyAlgorithm
from certrenewal.stepca.tokens import renew_token
from tests.unit.builders import NOON, key_of
from tests.unit.test_certificate import CA

HEADERS = jws.JWSRegistry(algorithms=["ES256", "ES384", "ES512", "RS256", "EdDSA"], strict_check_header=False)
HEADERS.max_header_length = 1 << 20  # a chain is longer than most headers

KEYS = {
    "ES256": key_of(KeyAlgorithm.EC_P256),
    "ES384": key_of(KeyAlgorithm.EC_P384),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "RS256": key_of(KeyAlgorithm.RSA_2048),
    "EdDSA": key_of(KeyAlgorithm.ED25519),
}
KINDS: dict[str, type[jwk.ECKey | jwk.RSAKey | jwk.OKPKey]] = {
    "ES256": jwk.ECKey,
    "ES384": jwk.ECKey,
    "ES512": jwk.ECKey,
    "RS256": jwk.RSAKey,
    "EdDSA": jwk.OKPKey,
}


def token_of(key: PrivateKey) -> str:
    """A renew token that this key signs for a leaf of its own."""
    chain = parse_chain(dump_certificates([CA.leaf(key=key)]))
    return renew_token(chain, key, audience="https://ca.example/1.0/renew", now=NOON)


@pytest.mark.parametrize("algorithm", KEYS)
def test_each_kind_of_key_signs_a_token_that_its_public_half_verifies(algorithm: str) -> None:
    key = KEYS[algorithm]

    with warnings.catch_warnings(action="ignore"):
        opened = jws.deserialize_compact(token_of(key), KINDS[algorithm].import_key(dump_key(key)), registry=HEADERS)

    assert opened.headers()["alg"] == algorithm
    assert b"https://ca.example/1.0/renew" in opened.payload
