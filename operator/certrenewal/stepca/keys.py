"""How are a private key and its request made?"""

from __future__ import annotations

import asyncio
from typing import assert_never

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from certrenewal.domain.certificate import PrivateKey
from certrenewal.domain.keys import KeyAlgorithm


async def generate(algorithm: KeyAlgorithm) -> PrivateKey:
    """A new private key. RSA takes up to a second of a core, so it is made in a thread."""
    match algorithm:
        case KeyAlgorithm.EC_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyAlgorithm.EC_P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyAlgorithm.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case KeyAlgorithm.RSA_2048 | KeyAlgorithm.RSA_3072 | KeyAlgorithm.RSA_4096:
            size = int(algorithm.removeprefix("RSA-"))
            return await asyncio.to_thread(rsa.generate_private_key, 65537, size)
    assert_never(algorithm)


def request(key: PrivateKey) -> x509.CertificateSigningRequest:
    """A bare CSR: step-ca takes subject and names from the token, and refuses a CSR that says otherwise."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
