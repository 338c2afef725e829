"""What does a user want of one certificate: annotations and CertRenewal.spec, read into one frozen value."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

import orjson

from certrenewal.domain import annotation
from certrenewal.domain.durations import parse_duration
from certrenewal.domain.formats import Format, Profile, data_keys
from certrenewal.domain.hooks import Hook, InvalidHook, host_alone, parse_hooks, ping
from certrenewal.domain.keys import KeyAlgorithm, KeyRotation
from certrenewal.domain.names import Name, parse_names
from certrenewal.domain.objects import data_key, is_object_name, object_name
from certrenewal.domain.window import Window, parse_window

_T = TypeVar("_T")
MOST_NAMES = 100
LONGEST_NAME = 1024
LONGEST_RESTART = 8192
SHORTEST_TOKEN, LONGEST_TOKEN = timedelta(seconds=1), timedelta(hours=1)

_BLANKS = " \t\n\f\r"  # those that the schema's regular expressions know
_PORT = re.compile(r"[0-9]{1,5}")
_VERIFY_REMEDY = "write a port from 1 to 65535, or a Service and a port such as web.shop.svc:8443"
_WORKLOAD = re.compile(
    r"(?!(Pod|Job|CronJob|ReplicaSet)/)"  # never restarted
    r"(?P<kind>[A-Z][A-Za-z0-9]{0,62}(\.[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?)/(?P<name>[a-z0-9]([-a-z0-9.]*[a-z0-9])?)"
)


class InvalidSpec(ValueError):
    """A field that cannot be read: its name as the user wrote it, the value, and what would be right."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field}: {str(value)[:200]!r} cannot be read: {remedy[:2000]}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Percent:
    """A share of a certificate's lifetime, 1 to 99."""

    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKeys:
    """Under which keys of the Secret chain, private key and roots lie."""

    crt: str = "tls.crt"
    key: str = "tls.key"
    ca: str = "ca.crt"


@dataclass(frozen=True, slots=True, order=True)
class WorkloadRef:
    """A workload within a namespace, as ``Deployment/web``."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Restart:
    """Who is restarted: every dependent (``Auto``), nobody (``Never``), or just those listed."""

    mode: str = "Auto"
    listed: frozenset[WorkloadRef] = frozenset()

    def covers(self, workload: WorkloadRef) -> bool:
        """Whether ``workload``, if it depends on the Secret, is to be restarted."""
        return self.mode == "Auto" or workload in self.listed


class Revoke(StrEnum):
    """When the CA is told that a certificate is not to be used any more."""

    ON_RENEW = "OnRenew"
    ON_DELETE = "OnDelete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs12:
    """How key stores are encrypted, and which Secret of the same namespace has their password."""

    password_secret: str
    password_key: str = "password"
    profile: Profile = Profile.MODERN


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Where the certificate is to be seen: a port of a Service; without ``host`` the one that the certificate names."""

    port: int
    host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWish:
    """A one-time token is wanted, and no certificate."""

    lifetime: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One CertRenewal.spec; ``names`` is empty where those of the present certificate are meant."""

    secret_name: str
    authority: str = "default"
    names: tuple[Name, ...] = ()
    duration: timedelta | None = None
    renew_before: timedelta | Percent | None = None
    key_algorithm: KeyAlgorithm | None = None
    key_rotation: KeyRotation = KeyRotation.NEVER
    data_keys: DataKeys = field(default_factory=DataKeys)
    restart: Restart = field(default_factory=Restart)
    restart_window: Window | None = None
    verify: Verify | None = None
    formats: frozenset[Format] = frozenset()
    pkcs12: Pkcs12 | None = None
    revoke: frozenset[Revoke] = frozenset()
    hooks: tuple[Hook, ...] = ()
    token: TokenWish | None = None


def parse_spec(name: str, spec: Mapping[str, Any]) -> Spec:
    """Read the spec of the CertRenewal ``name``; InvalidSpec names the first field that cannot be read."""
    try:
        text = orjson.dumps(spec).decode()
    except TypeError:
        return _parse(name, spec)  # which says what nests too deep
    return _parse_text(name, text)


@functools.lru_cache(maxsize=1024)
def _parse_text(name: str, text: str) -> Spec:
    """Read it once for the several that ask in one look, also where many looks take turns."""
    return _parse(name, orjson.loads(text))


def _parse(name: str, spec: Mapping[str, Any]) -> Spec:
    token = _token(spec)  # first: beside one, the other fields are not to be mended but to be left out
    key = spec.get("key") or {}
    read = Spec(
        secret_name=_read(spec, "spec.secretName", "secretName", name, object_name),
        authority=_read(spec, "spec.authority", "authority", "default", object_name),
        names=_read(spec, "spec.names", "names", (), name_list),
        duration=_read(spec, "spec.duration", "duration", None, parse_duration),
        renew_before=_read(spec, "spec.renewBefore", "renewBefore", None, _renew_before),
        key_algorithm=_read(key, "spec.key.algorithm", "algorithm", None, _word(KeyAlgorithm)),
        key_rotation=_read(key, "spec.key.rotation", "rotation", KeyRotation.NEVER, _word(KeyRotation)),
        data_keys=_read(spec, "spec.dataKeys", "dataKeys", DataKeys(), _data_keys),
        restart=_read(spec, "spec.restart", "restart", Restart(), _restart),
        restart_window=_read(spec, "spec.restartWindow", "restartWindow", None, parse_window),
        verify=_read(spec, "spec.verify", "verify", None, _verify),
        formats=_read(spec, "spec.formats", "formats", frozenset(), _formats),
        pkcs12=_pkcs12(spec.get("pkcs12") or {}),
        revoke=_read(spec, "spec.revoke", "revoke", frozenset(), _revoke),
        hooks=_hooks(spec.get("hooks") or ()),
        token=token,
    )
    if read.duration and isinstance(read.renew_before, timedelta) and read.renew_before >= read.duration:
        remedy = "write less than spec.duration, or a share of the lifetime such as 33%"
        raise InvalidSpec("spec.renewBefore", spec["renewBefore"], remedy)
    _check_formats(read)
    return read


def _token(spec: Mapping[str, Any]) -> TokenWish | None:
    value = spec.get("token")
    if value is None:
        return None
    for name in _OF_CERTIFICATES:
        if spec.get(name) is not None and (name, spec[name]) != ("restart", "Auto"):
            raise InvalidSpec(f"spec.{name}", spec[name], "this is about a certificate, leave it out beside a token")
    default = TokenWish().lifetime
    return TokenWish(lifetime=_read(value, "spec.token.lifetime", "lifetime", default, token_lifetime))


_OF_CERTIFICATES = (
    "duration",
    "renewBefore",
    "key",
    "dataKeys",
    "restart",
    "restartWindow",
    "verify",
    "formats",
    "pkcs12",
    "revoke",
    "hooks",
)


def _check_formats(spec: Spec) -> None:
    if Format.PKCS12 in spec.formats and spec.pkcs12 is None:
        remedy = "pkcs12 needs spec.pkcs12.passwordSecretRef (annotation pkcs12-password-secret): a Secret's name"
        raise InvalidSpec("spec.formats", ", ".join(sorted(spec.formats)), remedy)
    taken = {spec.data_keys.crt, spec.data_keys.key, spec.data_keys.ca} & data_keys(spec.formats)
    if taken:
        remedy = f"key {min(taken)} is that of a format: choose another in spec.dataKeys (annotation data-keys)"
        raise InvalidSpec("spec.dataKeys", min(taken), remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the annotations of a Secret say: a CertRenewal.spec of all that could be read, and what could not."""

    spec: dict[str, Any]
    problem: InvalidSpec | None


def is_opted_in(secret_annotations: Mapping[str, str]) -> bool:
    """Whether a Secret asks for anything. Any value but "true" and "false" is a question, see read_wish."""
    return _asks(secret_annotations, annotation.RENEW) or _asks(secret_annotations, annotation.TOKEN)


def _asks(secret_annotations: Mapping[str, str], key: str) -> bool:
    return secret_annotations.get(key, "false") != "false"


def read_wish(secret_name: str, secret_annotations: Mapping[str, str]) -> Wish:
    """Turn the annotations of contract §2 into a CertRenewal.spec."""
    return _read_wish(secret_name, frozenset(secret_annotations.items()))


@functools.lru_cache(maxsize=1024)  # as `_parse_text`
def _read_wish(secret_name: str, entries: frozenset[tuple[str, str]]) -> Wish:
    secret_annotations = dict(entries)
    wants_token = _asks(secret_annotations, annotation.TOKEN) and not _asks(secret_annotations, annotation.RENEW)
    spec: dict[str, Any] = {"secretName": secret_name, **({"token": {}} if wants_token else {})}
    problem: InvalidSpec | None = None
    for key, (path, split) in _SHORT_FORMS.items():
        if key not in secret_annotations or (key == annotation.TOKEN_LIFETIME and not wants_token):
            continue
        try:
            value = split(secret_annotations[key])
            trial = _with(spec, path, value)
            parse_spec(secret_name, trial)
        except ValueError as refusal:
            problem = problem or _about(key, secret_annotations[key], refusal)
        else:
            spec = trial
    return Wish(spec=spec, problem=_unknown(secret_annotations) or _misplaced(secret_annotations) or problem)


def _unknown(secret_annotations: Mapping[str, str]) -> InvalidSpec | None:
    for key, value in sorted(secret_annotations.items()):
        if key in (annotation.RENEW, annotation.TOKEN) and value not in ("true", "false"):
            return InvalidSpec(f"annotation {key}", value, 'write "true" or "false"')
        if key.startswith(annotation.PREFIX) and key not in annotation.ON_SECRETS:
            known = ", ".join(sorted(k.removeprefix(annotation.PREFIX) for k in annotation.ON_SECRETS))
            return InvalidSpec(f"annotation {key}", value, f"there is no such annotation; there are {known}")
    return None


def _misplaced(secret_annotations: Mapping[str, str]) -> InvalidSpec | None:
    """What does not go together: a certificate and a token, or what is about the one beside the other."""
    renews, asks = (_asks(secret_annotations, key) for key in (annotation.RENEW, annotation.TOKEN))
    strays = {}
    if asks:
        strays[annotation.RENEW_NOW] = "write token-now beside token"
        strays[annotation.REVOKE_NOW] = "this is about a certificate, leave it out beside a token"
    if renews and asks:
        strays = {annotation.TOKEN: "the Secret has renew as well, keep one of the two"}
    elif renews:
        strays = dict.fromkeys(
            (annotation.TOKEN_LIFETIME, annotation.TOKEN_NOW), "this goes with token, not with renew"
        )
    for key, remedy in strays.items():
        if key in secret_annotations:
            return InvalidSpec(f"annotation {key}", secret_annotations[key], remedy)
    return None


def _about(key: str, value: str, refusal: ValueError) -> InvalidSpec:
    """The same refusal in the words of the annotation that the user wrote."""
    text = str(refusal)
    if key == annotation.PING_URL:
        value = host_alone(value)
    if isinstance(refusal, InvalidSpec):
        text = text.split(" cannot be read: ", 1)[-1]
    return InvalidSpec(f"annotation {key}", value, text)


def _with(spec: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    head, *rest = path
    return {**spec, head: _with(spec.get(head, {}), tuple(rest), value) if rest else value}


def _comma_list(text: str) -> list[str]:
    items = [item.strip(_BLANKS) for item in text.split(",")]
    if not all(items):
        raise ValueError("write a list separated by single commas, without an empty part")
    return items


def _comma_set(text: str) -> list[str]:
    """As a list of which the API server takes each word once."""
    return list(dict.fromkeys(_comma_list(text)))


def _assignments(text: str) -> dict[str, str]:
    pairs = [item.partition("=") for item in _comma_list(text)]
    if not all(sign for _, sign, _ in pairs):
        raise ValueError("write crt=NAME,key=NAME,ca=NAME (each may be left out)")
    assigned = {name.strip(): value.strip() for name, _, value in pairs}
    if len(assigned) < len(pairs):
        raise ValueError("name each of crt, key and ca once at most")
    return assigned


def _host_and_port(text: str) -> dict[str, Any]:
    host, colon, port = text.rpartition(":")
    if not _PORT.fullmatch(port):
        raise ValueError(_VERIFY_REMEDY)
    return {"port": int(port), **({"host": host} if colon else {})}


_SHORT_FORMS: dict[str, tuple[tuple[str, ...], Callable[[str], Any]]] = {
    annotation.AUTHORITY: (("authority",), str),
    annotation.NAMES: (("names",), _comma_list),
    annotation.DURATION: (("duration",), str),
    annotation.RENEW_BEFORE: (("renewBefore",), str),
    annotation.KEY: (("key", "algorithm"), str),
    annotation.KEY_ROTATION: (("key", "rotation"), str),
    annotation.DATA_KEYS: (("dataKeys",), _assignments),
    annotation.RESTART: (("restart",), str),
    annotation.RESTART_WINDOW: (("restartWindow",), str),
    annotation.VERIFY: (("verify",), _host_and_port),
    annotation.PKCS12_PASSWORD_SECRET: (("pkcs12", "passwordSecretRef", "name"), str),
    annotation.PKCS12_PROFILE: (("pkcs12", "profile"), str),
    annotation.FORMATS: (("formats",), _comma_set),
    annotation.REVOKE: (("revoke",), _comma_set),
    annotation.PING_URL: (("hooks",), ping),
    annotation.TOKEN_LIFETIME: (("token", "lifetime"), str),
}


def _read(spec: Mapping[str, Any], label: str, key: str, default: _T, parse: Callable[[Any], _T]) -> _T:
    value = spec.get(key)
    if value is None:
        return default
    try:
        return parse(value)
    except ValueError as refusal:
        raise InvalidSpec(label, value, str(refusal)) from None


def token_lifetime(value: str) -> timedelta:
    """Read how long a one-time token is good; ValueError says what would be right."""
    lifetime = parse_duration(value)
    if not SHORTEST_TOKEN <= lifetime <= LONGEST_TOKEN:
        raise ValueError("a token is good for 1s to 1h")
    return lifetime


def name_list(values: list[str]) -> tuple[Name, ...]:
    """Read the names that are asked for; ValueError says what would be right."""
    if not 0 < len(values) <= MOST_NAMES:
        raise ValueError(f"name from one to {MOST_NAMES} DNS names, IPs, e-mails or URIs")
    if any(len(value) > LONGEST_NAME for value in values):
        raise ValueError(f"no name is longer than {LONGEST_NAME} characters")
    return parse_names(values)


def _renew_before(value: str) -> timedelta | Percent:
    if value.endswith("%"):
        number = value.removesuffix("%")
        if not number.isascii() or not number.isdecimal() or not 1 <= int(number) <= 99:
            raise ValueError("a share of the lifetime is a whole percentage from 1% to 99%")
        return Percent(int(number))
    return parse_duration(value)


def _formats(values: list[str]) -> frozenset[Format]:
    return frozenset(_word(Format)(value) for value in values)


def _revoke(values: list[str]) -> frozenset[Revoke]:
    return frozenset(_word(Revoke)(value) for value in values)


def _pkcs12(value: Mapping[str, Any]) -> Pkcs12 | None:
    if not value:
        return None
    reference = value.get("passwordSecretRef") or {}
    if "name" not in reference:
        remedy = "name the Secret that has the password (annotation pkcs12-password-secret)"
        raise InvalidSpec("spec.pkcs12.passwordSecretRef", reference, remedy)
    return Pkcs12(
        password_secret=_read(reference, "spec.pkcs12.passwordSecretRef.name", "name", "", object_name),
        password_key=_read(reference, "spec.pkcs12.passwordSecretRef.key", "key", "password", data_key),
        profile=_read(value, "spec.pkcs12.profile", "profile", Profile.MODERN, _word(Profile)),
    )


def _hooks(values: Iterable[Mapping[str, Any]]) -> tuple[Hook, ...]:
    try:
        return parse_hooks(values)
    except InvalidHook as refusal:
        raise InvalidSpec(f"spec.hooks{refusal.path}", refusal.shown, str(refusal)) from None


_Word = TypeVar("_Word", KeyAlgorithm, KeyRotation, Format, Profile, Revoke)


def _word(words: type[_Word]) -> Callable[[Any], _Word]:
    def parse(value: Any) -> _Word:
        try:
            return words(value)
        except ValueError:
            raise ValueError(f"write one of {', '.join(words)}") from None

    return parse


def _data_keys(value: Mapping[str, str]) -> DataKeys:
    if unknown := set(value) - {"crt", "key", "ca"}:
        raise ValueError(f"there is no {min(unknown)[:80]!r}: name crt, key or ca")
    keys = DataKeys(**value)
    chosen = tuple(map(data_key, (keys.crt, keys.key, keys.ca)))
    if len(set(chosen)) < len(chosen):
        raise ValueError("certificate, key and roots need three different keys")
    return keys


def _restart(value: str) -> Restart:
    if value in ("Auto", "Never"):
        return Restart(value)
    if len(value) > LONGEST_RESTART:
        raise ValueError(f"a list of workloads has at most {LONGEST_RESTART} characters")
    matches = [_WORKLOAD.fullmatch(item) for item in _comma_list(value)]
    listed = frozenset(WorkloadRef(match["kind"], match["name"]) for match in matches if match)
    if not all(matches):
        raise ValueError("write Auto, Never, or a list such as Deployment/web,StatefulSet/db")
    return Restart("Listed", listed)


def _verify(value: Mapping[str, Any]) -> Verify:
    port, host = value.get("port"), value.get("host")
    if not isinstance(port, int) or not 0 < port < 65536:
        raise ValueError(_VERIFY_REMEDY)
    if host is not None and not is_object_name(host):
        raise ValueError(_VERIFY_REMEDY)
    return Verify(port=port, host=host)
