"""What do the unit tests build their cases from: a small CA of real certificates, and objects with one thing changed."""

from __future__ import annotations

import datetime
import functools
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certrenewal.domain.authority import AuthorityView
from certrenewal.domain.certificate import Leaf, PrivateKey, dump_certificates, dump_key
from certrenewal.domain.keys import KeyAlgorithm
from certrenewal.domain.kinds import BUILT_IN
from certrenewal.domain.names import Kind, Name, parse_name
from certrenewal.domain.observed import Observed, read_held
from certrenewal.domain.policy import Asker, Pattern, Rule, parse_pattern
from certrenewal.domain.rollout import Turn, Workload
from certrenewal.domain.spec import Spec, WorkloadRef

NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(hours=24)
WEB = WorkloadRef("Deployment", "web")


def new_key(algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256) -> PrivateKey:
    """A new private key."""
    match algorithm:
        case KeyAlgorithm.EC_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyAlgorithm.EC_P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyAlgorithm.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, int(algorithm.removeprefix("RSA-")))


def key_of(algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256, which: int = 0) -> PrivateKey:
    """One of the keys that all tests share, as making RSA keys is slow."""
    return _key(algorithm, which)


@functools.cache
def _key(algorithm: KeyAlgorithm, which: int) -> PrivateKey:
    return new_key(algorithm)


def subject(common_name: str) -> x509.Name:
    """A distinguished name of one part; of none where it is empty."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


def general_name(text: str) -> x509.GeneralName:
    """A subject alternative name of the kind that the text looks like."""
    name = parse_name(text)
    match name.kind:
        case Kind.DNS:
            return x509.DNSName(text)
        case Kind.IP:
            return x509.IPAddress(ipaddress.ip_address(text))
        case Kind.EMAIL:
            return x509.RFC822Name(text)
        case Kind.URI:
            return x509.UniformResourceIdentifier(text)


@dataclass(frozen=True)
class Issuer:
    """A CA: its own certificate, its key, and the chain that it sends along with what it signs."""

    certificate: x509.Certificate
    key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        """Its certificate as PEM."""
        return dump_certificates([self.certificate])

    def leaf(
        self,
        names: Sequence[str | x509.GeneralName] = ("web.shop.svc",),
        *,
        key: PrivateKey | None = None,
        common_name: str | None = None,
        not_before: datetime.datetime = NOON,
        lifetime: timedelta = DAY,
        purposes: Iterable[x509.ObjectIdentifier] | None = (
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.CLIENT_AUTH,
        ),
        signs: bool = True,
    ) -> x509.Certificate:
        """An end-entity certificate, such as step-ca issues."""
        general = [general_name(name) if isinstance(name, str) else name for name in names]
        first = next((name for name in names if isinstance(name, str)), "")
        builder = _builder(
            subject(first if common_name is None else common_name), self.certificate.subject, key or key_of()
        )
        builder = builder.not_valid_before(not_before).not_valid_after(not_before + lifetime)
        builder = builder.add_extension(_usage(digital_signature=signs), critical=True)
        if general:
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        if purposes is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def bundle(self, leaf: x509.Certificate) -> bytes:
        """A leaf and the intermediates that follow it, as PEM."""
        return dump_certificates([leaf, *self.chain])


def _builder(owner: x509.Name, issuer: x509.Name, key: PrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(owner)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
    )


def _usage(*, digital_signature: bool = False, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=not signs_certificates,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def authority_certificate(
    name: str, key: PrivateKey, *, signer: Issuer | None = None, ca: bool = True
) -> x509.Certificate:
    """A CA certificate, self-signed unless there is a signer; with ``ca=False`` one that must not sign others."""
    issuer = signer.certificate.subject if signer else subject(name)
    builder = _builder(subject(name), issuer, key)
    builder = builder.not_valid_before(NOON - 365 * DAY).not_valid_after(NOON + 3650 * DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return builder.sign(signer.key if signer else key, hashes.SHA256())


def a_root(name: str = "Root") -> Issuer:
    """A root, the same for each name."""
    return _root(name)


@functools.cache
def _root(name: str) -> Issuer:
    key = new_key()
    return Issuer(authority_certificate(name, key), key)


def an_intermediate(root: str = "Root") -> Issuer:
    """The intermediate under a root, the same for each root."""
    return _intermediate(root)


@functools.cache
def _intermediate(root: str) -> Issuer:
    key = new_key()
    certificate = authority_certificate("Intermediate", key, signer=a_root(root))
    return Issuer(certificate, key, (certificate,))


def names(*texts: str) -> tuple[Name, ...]:
    """Several names."""
    return tuple(parse_name(text) for text in texts)


def a_rule(*patterns: str, namespaces: Sequence[str] = ("*",), **changes: Any) -> Rule:
    """A rule of a policy, for every namespace unless told otherwise."""
    allowed: tuple[Pattern, ...] = tuple(parse_pattern(pattern) for pattern in patterns)
    return Rule(**{"namespaces": tuple(namespaces), "names": allowed, **changes})


def an_asker(namespace: str = "shop", cluster_domain: str = "cluster.local", **labels: str) -> Asker:
    """A namespace that asks for names."""
    return Asker(namespace=namespace, labels=labels, cluster_domain=cluster_domain)


def a_leaf(**changes: Any) -> Leaf:
    """The facts of a certificate that lives from noon to noon."""
    facts: dict[str, Any] = {
        "certificate": good_certificate(),
        "serial": "4711",
        "fingerprint": "ab" * 32,
        "not_before": NOON,
        "not_after": NOON + DAY,
        "subject": "web.shop.svc",
        "names": names("web.shop.svc"),
        "client_auth": True,
        "signs": True,
    }
    return Leaf(**{**facts, **changes})


def an_authority(**changes: Any) -> AuthorityView:
    """An authority that is ready and trusted, and can sign."""
    root = a_root()
    facts: dict[str, Any] = {
        "name": "default",
        "ready": True,
        "reason": "Ready",
        "message": "",
        "roots": (root.certificate,),
        "can_sign": True,
        "bundle": root.pem,
    }
    return AuthorityView(**{**facts, **changes})


def observed(
    *,
    crt: bytes | None = None,
    key: bytes | None = None,
    roots: bytes | None = None,
    authority: Mapping[str, Any] | None = None,
    spec: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Observed:
    """A Secret that holds all that is wanted, with the changes that a case is about."""
    issuer = an_intermediate()
    held = read_held(
        issuer.bundle(good_certificate()) if crt is None else crt,
        dump_key(key_of()) if key is None else key,
        a_root().pem if roots is None else roots,
    )
    whole = Observed(
        namespace="shop",
        uid="6f1c",
        spec=Spec(**{"secret_name": "web-tls", **(spec or {})}),
        held=held,
        authority=an_authority(**(authority or {})),
        asker=an_asker(),
    )
    return replace(whole, **changes)


@functools.cache
def good_certificate() -> x509.Certificate:
    """The certificate of `observed`, the same one in all tests."""
    return an_intermediate().leaf()


def a_workload(**changes: Any) -> Workload:
    """Deployment shop/web, which uses Secret web-tls and is healthy."""
    facts: dict[str, Any] = {
        "namespace": "shop",
        "ref": WEB,
        "resource": BUILT_IN["Deployment"],
        "uid": "w1",
        "secrets": frozenset({"web-tls"}),
        "marks": {},
        "opted_out": False,
        "turn": Turn(follows=True, order=0),
        "window": None,
        "fault": None,
        "complete": True,
        "waits": None,
        "failed": None,
    }
    return Workload(**{**facts, **changes})
