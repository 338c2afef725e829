"""What does an administrator say of one step-ca: CertAuthority.spec, read into one frozen value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from certrenewal.domain.certificate import Malformed, load_certificates
from certrenewal.domain.durations import parse_duration
from certrenewal.domain.policy import LabelSelector, Rule, parse_pattern, parse_selector
from certrenewal.domain.spec import InvalidSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretKeyRef:
    """One key of one Secret."""

    namespace: str
    name: str
    key: str = "password"

    def __str__(self) -> str:
        return f"key {self.key!r} of Secret {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionerRef:
    """A JWK provisioner and where its password lies."""

    name: str
    kid: str | None
    password: SecretKeyRef


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthoritySpec:
    """How to reach one step-ca, whom to be there, and who may ask it for which names."""

    url: str
    fingerprint: str | None = None
    ca_bundle: tuple[x509.Certificate, ...] = ()
    provisioner: ProvisionerRef | None = None
    policy: tuple[Rule, ...] = ()
    renew_after_expiry: bool = False
    concurrency: int = 16
    requests_per_second: int = 50

    @property
    def host(self) -> str:
        """The host of the URL, as it must stand in the CA's certificate and in a token's audience."""
        return urlsplit(self.url).hostname or ""


def parse_authority(spec: Mapping[str, Any]) -> AuthoritySpec:
    """Read CertAuthority.spec; InvalidSpec names the field that cannot be read."""
    limits = spec.get("limits") or {}
    return AuthoritySpec(
        url=_url(spec.get("url", "")),
        fingerprint=_fingerprint(spec.get("fingerprint")),
        ca_bundle=_bundle(spec.get("caBundle")),
        provisioner=_provisioner(spec.get("provisioner")),
        policy=tuple(_rule(index, rule) for index, rule in enumerate(spec.get("policy") or ())),
        renew_after_expiry=bool(spec.get("renewAfterExpiry", False)),
        concurrency=int(limits.get("concurrency", 16)),
        requests_per_second=int(limits.get("requestsPerSecond", 50)),
    )


def _url(value: str) -> str:
    url = value.rstrip("/")
    try:
        parts = urlsplit(url)
        is_plain = not (parts.path or parts.query or parts.fragment or parts.username)
        if parts.scheme == "https" and parts.hostname and is_plain and parts.port != 0:
            return url
    except ValueError:  # a port or an address that there cannot be
        pass
    raise InvalidSpec("spec.url", value, "write https://HOST or https://HOST:PORT")


def _fingerprint(value: str | None) -> str | None:
    if value is None:
        return None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise InvalidSpec(
            "spec.fingerprint", value, "write the 64 hexadecimal digits of `step certificate fingerprint root_ca.crt`"
        )
    return value.lower()


def _bundle(value: str | None) -> tuple[x509.Certificate, ...]:
    if value is None:
        return ()
    try:
        return tuple(load_certificates(value.encode()))
    except Malformed:
        raise InvalidSpec("spec.caBundle", value[:40], "write one or more PEM certificates") from None


def _provisioner(value: Mapping[str, Any] | None) -> ProvisionerRef | None:
    if value is None:
        return None
    reference = value["passwordSecretRef"]
    return ProvisionerRef(
        name=value["name"],
        kid=value.get("kid"),
        password=SecretKeyRef(
            namespace=reference["namespace"], name=reference["name"], key=reference.get("key", "password")
        ),
    )


def _rule(index: int, value: Mapping[str, Any]) -> Rule:
    label = f"spec.policy[{index}]"
    try:
        return Rule(
            namespaces=tuple(value.get("namespaces") or ()),
            selector=_selector(value.get("namespaceSelector")),
            accounts=tuple(value.get("serviceAccounts") or ()),
            names=tuple(parse_pattern(pattern) for pattern in value["names"]),
            max_duration=parse_duration(value["maxDuration"]) if value.get("maxDuration") else None,
        )
    except ValueError as refusal:
        raise InvalidSpec(label, value.get("names"), str(refusal)) from None


def _selector(value: Mapping[str, Any] | None) -> LabelSelector | None:
    return None if value is None else parse_selector(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityView:
    """What a decision needs to know of an authority."""

    name: str
    ready: bool
    reason: str
    message: str
    generation: int = 0  # of the CertAuthority
    roots: tuple[x509.Certificate, ...] = ()
    intermediates: tuple[x509.Certificate, ...] = ()
    policy: tuple[Rule, ...] = ()
    can_sign: bool = False
    provisioner: str = ""  # a digest of what the CA says of it
    longest: timedelta | None = None  # what it signs at most, where it has a limit of its own
    clock_in_sync: bool = True
    renew_after_expiry: bool = False
    bundle: bytes = b""  # the roots as PEM, just as they are written into Secrets
    # Since when it answers again, where it once did not: a CA that was restarted takes no older token.
    recovered: datetime | None = field(default=None, compare=False)
