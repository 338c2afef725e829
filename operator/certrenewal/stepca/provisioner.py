"""Which key signs one-time tokens: the JWK provisioner's, which the CA keeps encrypted with a password."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

from joserfc import jwe, jwk
from joserfc.jwe import JWERegistry
from joserfc.registry import HeaderParameter

from certrenewal.domain.authority import ProvisionerRef
from certrenewal.domain.certificate import PrivateKey, jws_algorithm
from certrenewal.domain.durations import parse_duration
from certrenewal.domain.reasons import Reason
from certrenewal.stepca.errors import BadAnswer, NotReady, Refused
from certrenewal.stepca.transport import Transport

# What step-ca's own JOSE library accepts. Its tools write 600,000, which joserfc refuses by default.
MOST_ITERATIONS = 1_000_000
PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioner:
    """A JWK provisioner that this process can sign for. The key stays out of the repr."""

    name: str
    kid: str
    key: PrivateKey = field(repr=False)
    entry: str  # a digest of what the CA says of it, to see whether that changed
    longest: timedelta | None = None  # what it signs at most, where it has a limit of its own; the CA's is not told


async def find(transport: Transport, wanted: ProvisionerRef, password: bytes) -> Provisioner:
    """The provisioner with its decrypted key; NotReady says what is missing or wrong."""
    entry = await _entry(transport, wanted)
    kid = str(entry["key"]["kid"])
    encrypted = entry.get("encryptedKey") or await _encrypted_key(transport, wanted, kid)
    # 600,000 rounds of PBKDF2 take a tenth of a second, during which the loop must not stand still.
    private = await asyncio.to_thread(_decrypt, encrypted, password, wanted)
    return Provisioner(
        name=str(entry["name"]),
        kid=kid,
        key=_signing_key(private, wanted),
        entry=_digest(entry),
        longest=_longest(entry.get("claims") or {}),
    )


def _longest(claims: Mapping[str, Any]) -> timedelta | None:
    try:
        return parse_duration(str(claims.get("maxTLSCertDuration", "")))
    except ValueError:
        return None


async def current_entry(transport: Transport, wanted: ProvisionerRef) -> str:
    """The digest of what the CA says of the provisioner now: its key, its claims, its options."""
    return _digest(await _entry(transport, wanted))


def _digest(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


async def _entry(transport: Transport, wanted: ProvisionerRef) -> Mapping[str, Any]:
    seen: list[str] = []
    cursor = ""
    while True:
        page = await transport.call("GET", f"/provisioners?limit={PAGE}&cursor={cursor}")
        for entry in page.get("provisioners") or ():
            if str(entry.get("type", "")).upper() != "JWK":
                continue
            kid = (entry.get("key") or {}).get("kid")
            seen.append(f"{entry.get('name')} ({kid})")
            if entry.get("name") == wanted.name and wanted.kid in (None, kid):
                return dict(entry)
        cursor = str(page.get("nextCursor") or "")
        if not cursor:
            raise NotReady(
                Reason.PROVISIONER_NOT_FOUND,
                f"spec.provisioner: the CA has no JWK provisioner {wanted.name!r}"
                + (f" with kid {wanted.kid!r}" if wanted.kid else "")
                + f"; it has {', '.join(sorted(seen)[:10]) or 'none'}",
            )


async def _encrypted_key(transport: Transport, wanted: ProvisionerRef, kid: str) -> str:
    try:
        return str((await transport.call("GET", f"/provisioners/{kid}/encrypted-key"))["key"])
    except Refused as refused:
        if refused.status != 404:
            raise
        raise NotReady(
            Reason.PROVISIONER_NOT_FOUND,
            f"spec.provisioner: provisioner {wanted.name!r} keeps no encrypted key at the CA",
        ) from None


def _decrypt(encrypted: str, password: bytes, wanted: ProvisionerRef) -> dict[str, Any]:
    """Open the compact JWE that step-ca's tools write (PBES2, A256GCM)."""
    try:
        opened = jwe.decrypt_compact(
            encrypted, jwk.OctKey.import_key(password), registry=_ProvisionerKeys(algorithms=_ALGORITHMS)
        )
        private = json.loads(opened.plaintext or b"")
    except Exception as failure:  # noqa: BLE001 - JOSE errors and cryptography's InvalidUnwrap share no base class
        raise NotReady(
            Reason.PASSWORD_WRONG,
            f"spec.provisioner.passwordSecretRef: {wanted.password} does not open the key of provisioner "
            f"{wanted.name!r} ({type(failure).__name__})",
        ) from None
    if not isinstance(private, dict) or "d" not in private:
        raise BadAnswer(f"the CA keeps no private JWK for provisioner {wanted.name!r}")
    return private


_ALGORITHMS = ["PBES2-HS256+A128KW", "PBES2-HS384+A192KW", "PBES2-HS512+A256KW", "A256GCM", "A192GCM", "A128GCM"]


class _ProvisionerKeys(JWERegistry):
    """joserfc's algorithms, with the iteration count that step-ca's tools write allowed."""

    algorithms: ClassVar[Any] = {**JWERegistry.algorithms, "alg": {**JWERegistry.algorithms["alg"]}}  # type: ignore[misc]


def _iterations(value: Any) -> None:
    if not isinstance(value, int) or not 1000 <= value <= MOST_ITERATIONS:
        raise ValueError(f"must be between 1000 and {MOST_ITERATIONS}")


for _name in _ALGORITHMS[:3]:
    _model = copy.copy(_ProvisionerKeys.algorithms["alg"][_name])
    _model.more_header_registry = {
        **_model.more_header_registry,
        "p2c": HeaderParameter("PBES2 Count", _iterations, required=True),
    }
    _ProvisionerKeys.algorithms["alg"][_name] = _model


def _signing_key(private: Mapping[str, Any], wanted: ProvisionerRef) -> PrivateKey:
    try:
        key = jwk.import_key(dict(private)).private_key
        assert isinstance(key, PrivateKey)
        jws_algorithm(key)
    except Exception:  # noqa: BLE001 - a JWK can be wrong in many ways, and is in no words of theirs to be repeated
        raise BadAnswer(
            f"spec.provisioner: the key of provisioner {wanted.name!r} cannot sign tokens: "
            "name one with a key on P-256, P-384 or P-521, an RSA or an Ed25519 key"
        ) from None
    return key
