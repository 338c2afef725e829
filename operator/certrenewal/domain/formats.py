"""In which other forms does a Secret hold its certificate: one PEM file, DER, a PKCS#12 key store, a trust store?

Key stores are encrypted with random salts, so that two of the same content differ: what is there is opened and
compared, and written again only where it holds something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from certrenewal.domain.certificate import Chain, PrivateKey, dump_key

Roots = tuple[x509.Certificate, ...]

ALIAS = b"certificate"
ROUNDS = 2048
DEFAULT_PASSWORD = b"changeit"  # of Java's own trust store: what it protects is public
_PBES2 = bytes.fromhex("06092a864886f70d01050d")  # the OID 1.2.840.113549.1.5.13 in DER


class Format(StrEnum):
    """The words of ``spec.formats``."""

    COMBINED = "combined"
    DER = "der"
    PKCS12 = "pkcs12"
    TRUSTSTORE = "truststore"


class Profile(StrEnum):
    """How key stores are encrypted: as of today, or as Java before 8u301 and other old readers need it."""

    MODERN = "Modern2023"
    LEGACY = "LegacyDES"


DATA_KEYS: Mapping[Format, tuple[str, ...]] = {
    Format.COMBINED: ("tls-combined.pem",),
    Format.DER: ("tls.der", "key.der"),
    Format.PKCS12: ("keystore.p12",),
    Format.TRUSTSTORE: ("truststore.p12",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What every form holds. Key and password stay out of the repr."""

    chain: Chain
    key: PrivateKey = field(repr=False)
    roots: Roots
    profile: Profile = Profile.MODERN
    password: bytes | None = field(default=None, repr=False)  # of the key stores; None: not known


def data_keys(formats: Iterable[Format]) -> frozenset[str]:
    """The keys of the Secret in which these forms lie."""
    return frozenset(key for form in formats for key in DATA_KEYS[form])


def store_digests(data: Mapping[str, bytes | None]) -> dict[str, str]:
    """SHA-256 of each key store in a Secret's data, by its key."""
    stores = data_keys((Format.PKCS12, Format.TRUSTSTORE))
    return {key: hashlib.sha256(value).hexdigest() for key, value in data.items() if value and key in stores}


def is_password(value: bytes) -> bool:
    """Whether a key store can have it: text in UTF-8, of a character or more, and none that ends it for others."""
    try:
        return bool(value) and "\0" not in value.decode()
    except UnicodeDecodeError:
        return False


def is_writable(form: Format, *, password: bytes | None, roots: Roots) -> bool:
    """Whether a form can be made of what is known: a key store needs its password, a trust store a root."""
    match form:
        case Format.PKCS12:
            return password is not None
        case Format.TRUSTSTORE:
            return bool(roots)
        case _:
            return True


def render(form: Format, content: Content) -> dict[str, bytes]:
    """One form of the content, by the keys of the Secret."""
    match form:
        case Format.COMBINED:
            values = [dump_key(content.key) + content.chain.plain]
        case Format.DER:
            values = [
                content.chain.certificates[0].public_bytes(Encoding.DER),
                content.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
            ]
        case Format.PKCS12:
            values = [_key_store(content)]
        case Format.TRUSTSTORE:
            values = [trust_store(content.roots, profile=content.profile, password=_password(content))]
    return dict(zip(DATA_KEYS[form], values, strict=True))


def holds(form: Format, content: Content, data: Mapping[str, bytes]) -> bool:
    """Whether the Secret's data holds this form of the content already."""
    values = [data.get(key) for key in DATA_KEYS[form]]
    match form:
        case Format.PKCS12:
            return values[0] is not None and _is_key_store(values[0], content)
        case Format.TRUSTSTORE:
            profile, password = content.profile, _password(content)
            return values[0] is not None and is_trust_store(
                values[0], content.roots, profile=profile, password=password
            )
        case _:
            return values == list(render(form, content).values())


def _key_store(content: Content) -> bytes:
    leaf, *issuers = content.chain.certificates
    return pkcs12.serialize_key_and_certificates(
        ALIAS, content.key, leaf, issuers, _encryption(content.profile, _password(content))
    )


def trust_store(roots: Roots, *, profile: Profile = Profile.MODERN, password: bytes = DEFAULT_PASSWORD) -> bytes:
    """The roots as trusted entries of a PKCS#12 store, as Java reads them."""
    entries = [pkcs12.PKCS12Certificate(root, f"root-{number}".encode()) for number, root in enumerate(roots, 1)]
    return pkcs12.serialize_java_truststore(entries, _encryption(profile, password))


def is_trust_store(
    store: bytes, roots: Roots, *, profile: Profile = Profile.MODERN, password: bytes = DEFAULT_PASSWORD
) -> bool:
    """Whether it holds just these roots, encrypted like this."""
    opened = _opened(store, profile, password)
    return opened is not None and {entry.certificate for entry in opened.additional_certs} == set(roots)


def _encryption(profile: Profile, password: bytes) -> KeySerializationEncryption:
    scheme, digest = _SCHEMES[profile]
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(ROUNDS).key_cert_algorithm(scheme)
    return builder.hmac_hash(digest).build(password)


_SCHEMES: Mapping[Profile, tuple[pkcs12.PBES, hashes.HashAlgorithm]] = {
    Profile.MODERN: (pkcs12.PBES.PBESv2SHA256AndAES256CBC, hashes.SHA256()),
    Profile.LEGACY: (pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC, hashes.SHA1()),  # noqa: S303 - what old readers know
}


def _password(content: Content) -> bytes:
    return content.password if content.password is not None else DEFAULT_PASSWORD


def _opened(store: bytes, profile: Profile, password: bytes) -> pkcs12.PKCS12KeyAndCertificates | None:
    if (_PBES2 in store) is not (profile is Profile.MODERN):
        return None
    try:
        return pkcs12.load_pkcs12(store, password)
    except Exception:  # noqa: BLE001 - another password or no key store at all: either way it is not ours as it is
        return None


def _is_key_store(store: bytes, content: Content) -> bool:
    opened = _opened(store, content.profile, _password(content))
    if opened is None or opened.cert is None or opened.key is None:
        return False
    held = (opened.cert.certificate, *(issuer.certificate for issuer in opened.additional_certs))
    return held == content.chain.certificates and opened.key.public_key() == held[0].public_key()
