"""Which kinds of private key can a certificate have."""

from enum import StrEnum


class KeyAlgorithm(StrEnum):
    """The words of ``spec.key.algorithm``."""

    EC_P256 = "EC-P256"
    EC_P384 = "EC-P384"
    RSA_2048 = "RSA-2048"
    RSA_3072 = "RSA-3072"
    RSA_4096 = "RSA-4096"
    ED25519 = "Ed25519"


class KeyRotation(StrEnum):
    """Whether a renewal keeps the key (as ``step ca renew``) or makes a new one (as ``step ca rekey``)."""

    NEVER = "Never"
    ALWAYS = "Always"
