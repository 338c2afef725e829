"""What does a certificate say: does the key fit, does the chain hold, can it renew itself?"""

from __future__ import annotations

import binascii
import functools
import hashlib
import itertools
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import assert_never

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certrenewal.domain.keys import KeyAlgorithm
from certrenewal.domain.names import InvalidName, Kind, Name, parse_name

# Names and serials that cryptography merely dislikes, a long common name say, are the issuer's business.
warnings.filterwarnings("ignore", category=UserWarning, module=re.escape(__name__))

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

# How a token is signed with a key on each curve (RFC 7518 §3.4); on others, such as P-224, it cannot be.
JWS_BY_CURVE = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

# step-ca verifies a renew token's chain one minute before its leaf ends: a shorter life never verifies.
SHORTEST_TOKEN_RENEWAL = timedelta(minutes=1)


class Malformed(ValueError):
    """PEM that cannot be read as what it should be. The message never repeats the data."""


@dataclass(frozen=True, kw_only=True)  # without slots, for the properties that are kept
class Leaf:
    """The facts of one end-entity certificate; those that few ask for are read when somebody does."""

    certificate: x509.Certificate = field(repr=False)
    serial: str  # decimal, as step-ca speaks of it
    fingerprint: str  # SHA-256 of the DER, hexadecimal, as `step certificate fingerprint` prints it
    not_before: datetime
    not_after: datetime
    subject: str  # the common name, "" where there is none
    names: tuple[Name, ...]
    client_auth: bool
    signs: bool
    unjudged: bool = False  # it carries names that policy does not see: of other kinds, or a host as subject alone

    @functools.cached_property
    def issuer(self) -> str:
        """The issuer's distinguished name (RFC 4514)."""
        return _text_of(lambda: self.certificate.issuer)

    @functools.cached_property
    def algorithm(self) -> KeyAlgorithm | None:
        """The kind of its key, None for one that a user cannot ask for."""
        return algorithm_of(self.certificate.public_key())

    @property
    def lifetime(self) -> timedelta:
        """The whole life, backdating included."""
        return self.not_after - self.not_before

    @property
    def key_fingerprint(self) -> str:
        """SHA-256 of the public key, hexadecimal."""
        return hashlib.sha256(public_der(self.certificate.public_key())).hexdigest()

    @property
    def can_renew_by_token(self) -> bool:
        """Whether step-ca takes a renew token signed by this leaf's key (reference: POST /renew, bearer)."""
        key = self.certificate.public_key()
        has_algorithm = not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name in JWS_BY_CURVE
        return self.client_auth and self.signs and has_algorithm and self.lifetime >= SHORTEST_TOKEN_RENEWAL

    @property
    def can_renew_by_mtls(self) -> bool:
        """Whether step-ca takes this leaf as a TLS client certificate."""
        return self.client_auth


@dataclass(frozen=True, slots=True)
class Chain:
    """A leaf, the intermediates that follow it, and the PEM as it was read."""

    leaf: Leaf
    certificates: tuple[x509.Certificate, ...]
    x5c: tuple[str, ...]  # the same as a JWS header carries them: the DER in base64 (RFC 7515 §4.1.6)
    pem: bytes

    @property
    def plain(self) -> bytes:
        """The certificates as PEM and nothing else, in lines of 64 characters (RFC 7468)."""
        return b"".join(map(_armoured, self.x5c))

    def completed(self, intermediates: Iterable[x509.Certificate]) -> Chain:
        """The same leaf with the one of ``intermediates`` that issued it, alone where none did."""
        leaf = self.certificates[0]
        found = tuple(issuer for issuer in intermediates if _is_issued_by(leaf, issuer))[:1]
        return parse_chain(dump_certificates((leaf, *found)))

    def root(self, roots: Iterable[x509.Certificate]) -> x509.Certificate | None:
        """The root that it leads to: each certificate signed by the next, the last by it. Says nothing about time."""
        leaf, *issuers = self.certificates
        if issuers and not _is_issued_by(leaf, issuers[0]):
            return None
        if not all(_issuer_is_issued_by(*pair) for pair in itertools.pairwise(issuers)):
            return None
        last = self.certificates[-1]
        return next((root for root in roots if last == root or _issuer_is_issued_by(last, root)), None)

    def issuer(self, root: x509.Certificate | None) -> str:
        """The distinguished name of the leaf's issuer (RFC 4514), read of that one where it leads to ``root``."""
        if root is None:
            return self.leaf.issuer
        return _subject(self.certificates[1] if len(self.certificates) > 1 else root)

    def holds(self, roots: Iterable[x509.Certificate]) -> bool:
        """Whether it leads to one of these roots."""
        return self.root(roots) is not None


_LARGEST_KEY = 8192  # bytes of PEM: to check an RSA key takes time by the cube of its size, and RSA-8192 is below
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_LINE = re.compile(".{1,64}")


def parse_chain(pem: bytes) -> Chain:
    """Read a PEM chain, leaf first; Malformed where it is none.

    A readable leaf before something unreadable is a chain of one: what follows a leaf can be had without its key.
    """
    # Not the library's reader of PEM: what it gives has to be encoded again for each fingerprint, token and file.
    try:
        *blocks, rest = pem.split(_END)
        leaf, *others = (b"".join(block.partition(_BEGIN)[2].split()) for block in blocks)
        first, issuers = _leaf(_der(leaf)), () if _BEGIN in rest else _issuers(others)
    except Exception as failure:  # noqa: BLE001 - the parser raises a dozen types on hostile extensions
        raise Malformed(f"no readable certificate chain ({type(failure).__name__})") from None
    texts = (leaf, *others[: len(issuers)])
    return Chain(first, (first.certificate, *issuers), tuple(text.decode() for text in texts), pem)


def _armoured(text: str) -> bytes:
    return b"\n".join((_BEGIN, "\n".join(_LINE.findall(text)).encode(), _END, b""))


def _der(text: bytes) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)


def _issuers(texts: Iterable[bytes]) -> tuple[x509.Certificate, ...]:
    """None at all where one of them cannot be read."""
    try:
        return tuple(map(_issuer, texts))
    except Exception:  # noqa: BLE001 - as in parse_chain
        return ()


@functools.lru_cache(maxsize=64)  # thousands of leaves share a few, and what is read of one is kept with it
def _issuer(text: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(_der(text))


def load_certificates(pem: bytes) -> list[x509.Certificate]:
    """Read one or more PEM certificates; Malformed where there is none."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except Exception:  # noqa: BLE001 - as in parse_chain
        raise Malformed("no readable PEM certificate") from None


def subject_of(certificate: x509.Certificate) -> str:
    """The distinguished name of a certificate (RFC 4514), as far as it can be read."""
    return _text_of(lambda: certificate.subject)


def serial_of(der: bytes) -> str | None:
    """The serial of a certificate in DER, in decimal; None where it cannot be read."""
    try:
        return str(x509.load_der_x509_certificate(der).serial_number)
    except Exception:  # noqa: BLE001 - as in parse_chain
        return None


def load_key(pem: bytes) -> PrivateKey:
    """Read an unencrypted PEM private key; Malformed where it is none or of a kind that is not supported."""
    if len(pem) > _LARGEST_KEY:
        raise Malformed(f"a private key of more than {_LARGEST_KEY} bytes is not read")
    try:
        key: PrivateKeyTypes = serialization.load_pem_private_key(pem, password=None)
    except Exception:  # noqa: BLE001 - and never chained: a parser's message could repeat its input
        raise Malformed("no readable unencrypted PEM private key") from None
    if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        return key
    raise Malformed(f"a private key of kind {type(key).__name__} is not supported")


def dump_key(key: PrivateKey) -> bytes:
    """Write a private key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def is_pkcs8(pem: bytes) -> bool:
    """Whether a private key that can be read is written as `dump_key` does it (RFC 7468 §10)."""
    return pem.startswith(b"-----BEGIN PRIVATE KEY-----")


def public_der(key: PublicKeyTypes) -> bytes:
    """A public key as DER SubjectPublicKeyInfo, which two equal keys share."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_fits(key: PrivateKey, leaf: Leaf) -> bool:
    """Whether the private key is the one that the leaf certifies."""
    return key.public_key() == leaf.certificate.public_key()


def jws_algorithm(key: PrivateKey) -> str:
    """How a key signs tokens (RFC 7518 §3.1): Ed25519 by the name of RFC 8037, as step-ca does not know RFC 9864."""
    match key:
        case ec.EllipticCurvePrivateKey(curve=curve):
            return JWS_BY_CURVE[curve.name]
        case rsa.RSAPrivateKey():
            return "RS256"
        case ed25519.Ed25519PrivateKey():
            return "EdDSA"
    assert_never(key)


def algorithm_of(key: PublicKeyTypes) -> KeyAlgorithm | None:
    """The kind of a key, None for one that a user cannot ask for."""
    match key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return KeyAlgorithm.EC_P256
        case ec.EllipticCurvePublicKey(curve=ec.SECP384R1()):
            return KeyAlgorithm.EC_P384
        case ed25519.Ed25519PublicKey():
            return KeyAlgorithm.ED25519
        case rsa.RSAPublicKey(key_size=size):
            return {
                2048: KeyAlgorithm.RSA_2048,
                3072: KeyAlgorithm.RSA_3072,
                4096: KeyAlgorithm.RSA_4096,
            }.get(size)
    return None


@functools.lru_cache(maxsize=64)  # of the few CA certificates
def _subject(certificate: x509.Certificate) -> str:
    return _text_of(lambda: certificate.subject)


def _text_of(name: Callable[[], x509.Name]) -> str:
    try:
        return name().rfc4514_string()
    except Exception:  # noqa: BLE001 - as in parse_chain
        return "somebody whose name cannot be read"


@functools.lru_cache(maxsize=64)  # as above
def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER, in lower-case hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def dump_certificates(certificates: Iterable[x509.Certificate]) -> bytes:
    """Write certificates as one PEM bundle."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def common_name(name: x509.Name) -> str:
    """The first common name, or "" where there is none."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _leaf(der: bytes) -> Leaf:
    certificate = x509.load_der_x509_certificate(der)
    # Each of these is decoded at every access.
    extensions = {type(extension.value): extension.value for extension in certificate.extensions}
    usage, purposes = extensions.get(x509.KeyUsage), extensions.get(x509.ExtendedKeyUsage)
    alternatives = tuple(extensions.get(x509.SubjectAlternativeName, ()))
    subject = common_name(certificate.subject)
    names = _names(alternatives, subject)
    certificate.public_key()  # one that cannot be read is found out here
    return Leaf(
        certificate=certificate,
        serial=str(certificate.serial_number),
        fingerprint=hashlib.sha256(der).hexdigest(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        subject=subject,
        names=names,
        client_auth=purposes is None or ExtendedKeyUsageOID.CLIENT_AUTH in purposes,
        signs=usage is not None and usage.digital_signature,
        unjudged=_has_unjudged_names(alternatives, subject, names),
    )


def _names(alternatives: Iterable[x509.GeneralName], subject: str) -> tuple[Name, ...]:
    names: list[Name] = []
    for general in alternatives:
        match general:
            case x509.DNSName(value=value):
                names.append(Name(Kind.DNS, value.lower()))
            case x509.IPAddress(value=address):
                names.append(Name(Kind.IP, str(address)))
            case x509.RFC822Name(value=value):
                local, _, domain = value.rpartition("@")
                names.append(Name(Kind.EMAIL, f"{local}@{domain.lower()}"))
            case x509.UniformResourceIdentifier(value=value):
                names.append(Name(Kind.URI, value))
    return tuple(sorted(dict.fromkeys(names), key=lambda name: name.value != subject))


def _has_unjudged_names(alternatives: Iterable[x509.GeneralName], subject: str, names: tuple[Name, ...]) -> bool:
    if any(not isinstance(general, _JUDGED) for general in alternatives):
        return True
    try:
        name = parse_name(subject)
    except InvalidName:
        return False  # a title such as "Shop front" is no name that anybody could be mistaken for
    return "." in subject and name not in names


_JUDGED = (x509.DNSName, x509.IPAddress, x509.RFC822Name, x509.UniformResourceIdentifier)


def _is_issued_by(subject: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        is_ca = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        subject.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - not signed by it, or as in parse_chain
        return False
    return is_ca


_issuer_is_issued_by = functools.lru_cache(maxsize=256)(_is_issued_by)
