"""What does a user want requested after a renewal: spec.hooks, read into frozen values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from certrenewal.domain.certificate import Malformed, dump_certificates, load_certificates
from certrenewal.domain.durations import parse_duration
from certrenewal.domain.objects import data_key, object_name
from certrenewal.domain.placeholders import IN_BODY, IN_URL, strings, unknown

MOST_HOOKS = 8
MOST_HEADERS = 16
DEEPEST_BODY = 32
LARGEST_BODY = 65536
LONGEST_URL = 2048
TIMEOUT = timedelta(seconds=10)
LONGEST_TIMEOUT = timedelta(minutes=1)

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HEADER_VALUE = re.compile(r"[!-~]([ \t!-~]{0,8190}[!-~])?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_HOST_LABEL = r"[_0-9A-Za-z]([-_0-9A-Za-z]*[_0-9A-Za-z])?"
_URL = re.compile(
    rf"https://(?P<host>\[[0-9A-Fa-f:.]+\]|{_HOST_LABEL}(\.{_HOST_LABEL})*)(?P<port>:[0-9]{{1,5}})?"
    r"([/?][-0-9A-Za-z._~:/?@!$&'()*+,;=%\[\]]*)?"
)
_URL_REMEDY = f"write https://HOST/… or https://HOST:PORT/…, without a user or #, of {LONGEST_URL} characters at most"
# What frames the request or belongs to the connection is not a hook's to say.
_RESERVED = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "idempotency-key",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class InvalidHook(ValueError):
    """A field that cannot be read: its path below spec.hooks, what may be shown of it, and what would be right."""

    def __init__(self, path: str, shown: object, remedy: str) -> None:
        super().__init__(remedy)
        self.path = path
        self.shown = shown


class After(StrEnum):
    """What a hook waits for."""

    RENEWAL = "Renewal"
    ROLLOUT = "Rollout"


class Method(StrEnum):
    """How it asks."""

    GET = "GET"
    HEAD = "HEAD"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"


@dataclass(frozen=True, slots=True)
class KeyRef:
    """One key of a Secret of the hook's own namespace."""

    name: str
    key: str

    def __str__(self) -> str:
        return f"key {self.key!r} of Secret {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header with a value of its own, or with one that lies in a Secret."""

    name: str
    value: str = field(default="", repr=False)
    secret: KeyRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One entry of spec.hooks."""

    name: str
    url: str
    after: After = After.RENEWAL
    method: Method = Method.GET
    headers: tuple[Header, ...] = ()
    body: str | None = field(default=None, repr=False)  # JSON
    ca_bundle: str | None = field(default=None, repr=False)  # PEM
    authority: str | None = None
    client_certificate: bool = False
    timeout: timedelta = TIMEOUT

    @property
    def host(self) -> str:
        """The host of the URL, in small letters and without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port of the URL."""
        return urlsplit(self.url).port or 443

    @property
    def secrets(self) -> frozenset[KeyRef]:
        """Where the values of its headers lie."""
        return frozenset(header.secret for header in self.headers if header.secret)


def parse_hooks(values: Iterable[Mapping[str, Any]]) -> tuple[Hook, ...]:
    """Read spec.hooks; InvalidHook names the first field that cannot be read."""
    hooks = tuple(_hook(f"[{index}]", value) for index, value in enumerate(values))
    if len(hooks) > MOST_HOOKS:
        raise InvalidHook("", len(hooks), f"there are {MOST_HOOKS} hooks at most")
    names = [hook.name for hook in hooks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidHook("", twice, "each hook needs a name of its own")
    return hooks


def ping(url: str) -> list[dict[str, Any]]:
    """The hooks that the annotation ping-url stands for."""
    return [{"name": "ping", "url": url}]


def host_alone(url: str) -> str:
    """What may be shown of a URL: paths and queries of health checks are as good as passwords."""
    host = re.match(r"[a-z]*://([-_.0-9A-Za-z]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?(?=[/?#]|$)", url)
    return f"{host[0]}/…" if host else "…"


def is_header_value(text: str) -> bool:
    """Whether a header can carry it: printable ASCII characters in one line."""
    return _HEADER_VALUE.fullmatch(text) is not None


def _hook(path: str, value: Mapping[str, Any]) -> Hook:
    body = _body(f"{path}.body", value.get("body"))
    if value.get("caBundle") and value.get("authority"):
        raise InvalidHook(path, value.get("name"), "name caBundle or authority, not both")
    return Hook(
        name=_name(f"{path}.name", value.get("name")),
        url=_url(f"{path}.url", str(value.get("url", ""))),
        after=_word(After, f"{path}.after", value.get("after", After.RENEWAL)),
        method=_method(f"{path}.method", value.get("method"), body),
        headers=_headers(f"{path}.headers", value.get("headers") or ()),
        body=body,
        ca_bundle=_ca_bundle(f"{path}.caBundle", value.get("caBundle")),
        authority=value.get("authority") or None,
        client_certificate=bool(value.get("clientCertificate", False)),
        timeout=_timeout(f"{path}.timeout", value.get("timeout")),
    )


def _name(path: str, value: Any) -> str:
    if not isinstance(value, str) or not _LABEL.fullmatch(value):
        raise InvalidHook(path, value, "write a name of lower-case letters, digits and '-', up to 63")
    return value


def _url(path: str, value: str) -> str:
    shape = _URL.fullmatch(value) if len(value) <= LONGEST_URL else None
    if shape is None:
        raise InvalidHook(path, host_alone(value), _URL_REMEDY)
    host, port = shape["host"].lower(), int((shape["port"] or ":443")[1:])
    if not 0 < port < 65536 or len(host) > 253 or any(len(label) > 63 for label in host.split(".")):
        raise InvalidHook(path, host_alone(value), "write a host that can exist, and a port from 1 to 65535")
    if host.startswith("[") or host.replace(".", "").isdecimal():
        try:
            (IPv6Address if host.startswith("[") else IPv4Address)(host.strip("[]"))
        except ValueError:
            raise InvalidHook(path, host_alone(value), "write an IP address in full, such as 10.1.2.3") from None
    _check_placeholders(path, value, IN_URL)
    return value


def _check_placeholders(path: str, text: str, known: Iterable[str]) -> None:
    if (name := unknown(text, known)) is not None:
        words = ", ".join(f"$({word})" for word in known)
        raise InvalidHook(path, f"$({name})"[:80], f"there are {words}; $$(…) stands for the characters $(…)")


def _body(path: str, value: Any) -> str | None:
    """The body as JSON text, whether it was written as that or as what it stands for."""
    if value is None:
        return None
    refusal = InvalidHook(path, "…", f"write JSON, at most {DEEPEST_BODY} levels deep and {LARGEST_BODY} bytes long")
    try:
        content = json.loads(value, parse_constant=_no_number) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise refusal from None
    if not _is_shallow(content):
        raise refusal
    text = value if isinstance(value, str) else json.dumps(content)
    if len(text.encode()) > LARGEST_BODY:
        raise refusal
    for string in strings(content):
        _check_placeholders(path, string, IN_BODY)
    return text


def _no_number(word: str) -> NoReturn:
    raise ValueError(word)  # NaN and Infinity are Python's, not JSON


def _is_shallow(value: Any) -> bool:
    """Whether it may be walked recursively."""
    level = [value]
    for _ in range(DEEPEST_BODY):
        level = [
            item
            for outer in level
            if isinstance(outer, list | dict)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return not any(isinstance(item, list | dict) for item in level)


def _method(path: str, value: str | None, body: str | None) -> Method:
    if value is None:
        return Method.GET if body is None else Method.POST
    method = _word(Method, path, value)
    if body is not None and method in (Method.GET, Method.HEAD):
        raise InvalidHook(path, value, "a body goes with POST, PUT or PATCH")
    return method


def _headers(path: str, values: Iterable[Mapping[str, Any]]) -> tuple[Header, ...]:
    headers = tuple(_header(f"{path}[{index}]", value) for index, value in enumerate(values))
    if len(headers) > MOST_HEADERS:
        raise InvalidHook(path, len(headers), f"there are {MOST_HEADERS} headers at most")
    names = [header.name.lower() for header in headers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidHook(path, twice, "name each header once")
    return headers


def _header(path: str, value: Mapping[str, Any]) -> Header:
    name, text, source = value.get("name"), value.get("value"), value.get("valueFrom")
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise InvalidHook(f"{path}.name", name, "write the name of a header, such as Authorization")
    if name.lower() in _RESERVED:
        raise InvalidHook(f"{path}.name", name, "this header is set by the operator")
    if (text is None) == (source is None):
        raise InvalidHook(path, name, "give it a value, or valueFrom.secretKeyRef")
    if source is not None:
        return Header(name=name, secret=_key_ref(f"{path}.valueFrom.secretKeyRef", source.get("secretKeyRef") or {}))
    if not isinstance(text, str) or not is_header_value(text):
        raise InvalidHook(f"{path}.value", "…", "write printable ASCII characters in one line")
    return Header(name=name, value=text)


def _key_ref(path: str, value: Mapping[str, Any]) -> KeyRef:
    if not value.get("name") or not value.get("key"):
        raise InvalidHook(path, value, "name a Secret and a key in it")
    try:
        return KeyRef(object_name(value["name"]), data_key(value["key"]))
    except ValueError as refusal:
        raise InvalidHook(path, value, str(refusal)) from None


def _ca_bundle(path: str, value: str | None) -> str | None:
    """The certificates alone: what stands between them may be of any characters, which OpenSSL does not take."""
    if not value:
        return None
    try:
        return dump_certificates(load_certificates(value.encode())).decode()
    except Malformed:
        raise InvalidHook(path, value[:40], "write one or more PEM certificates") from None


def _timeout(path: str, value: str | None) -> timedelta:
    if value is None:
        return TIMEOUT
    try:
        timeout = parse_duration(value)
    except ValueError as refusal:
        raise InvalidHook(path, value, str(refusal)) from None
    if timeout > LONGEST_TIMEOUT:
        raise InvalidHook(path, value, "no hook may take longer than 1m")
    return timeout


_Word = TypeVar("_Word", After, Method)


def _word(words: type[_Word], path: str, value: Any) -> _Word:
    try:
        return words(value)
    except ValueError:
        raise InvalidHook(path, value, f"write one of {', '.join(words)}") from None
