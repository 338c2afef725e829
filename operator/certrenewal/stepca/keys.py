"""How are a private key and its request made?"""

from __future__ import annotations

import asyncio
from typing import assert_never

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

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
    return _signed(x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])), key)


def contradiction() -> x509.CertificateSigningRequest:
    """A CSR that fits no token, by a name that nobody has (RFC 6761 §6.4) and a key that nobody keeps."""
    name = "cancelled.invalid"
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return _signed(builder, ec.generate_private_key(ec.SECP256R1()))


def _signed(builder: x509.CertificateSigningRequestBuilder, key: PrivateKey) -> x509.CertificateSigningRequest:
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
