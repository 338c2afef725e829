"""Which names may a certificate carry, and which kind is each: DNS, IP, e-mail or URI.

step-ca sorts a name into its kind by trying IP, URI, e-mail and DNS in this order, and checks no syntax at all
(it signs ``a..b`` and ``*``), so syntax is judged here before anything is asked of it.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
# RFC 3986 §2: what Go, in which step-ca is written, writes just as it reads it. The rest it would rewrite.
_URI_CHARACTERS = r"([-A-Za-z0-9._~:/?@!$&'()*+,;=\[\]]|%[0-9A-Fa-f]{2})+"
_URI_REST = re.compile(rf"{_URI_CHARACTERS}(#{_URI_CHARACTERS})?")
_AUTHORITY = re.compile(r"([-A-Za-z0-9._~]+(:[-A-Za-z0-9._~]*)?@)?([-A-Za-z0-9._~]+|\[[0-9A-Fa-f:.]+\])?(:[0-9]+)?")
_EMAIL_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}")


class InvalidName(ValueError):
    """A text that is no certificate name; the message says why and what would be right."""


class Kind(StrEnum):
    """The four kinds of subject alternative name that step-ca issues (RFC 5280 §4.2.1.6)."""

    DNS = "DNS"
    IP = "IP"
    EMAIL = "EMAIL"
    URI = "URI"


class Name(NamedTuple):
    """One name in its canonical form: DNS in lower case, IP as Python prints it."""

    kind: Kind
    value: str

    def __str__(self) -> str:
        return self.value


@functools.lru_cache(maxsize=1024)  # one look reads the same names in spec, status and certificate
def parse_name(text: str) -> Name:
    """Read one name; InvalidName says what is wrong with it."""
    if not text.isascii():
        raise InvalidName(f"{text!r} is not ASCII: write international names in their xn-- form")
    if not text or any(c.isspace() or not c.isprintable() for c in text):
        raise InvalidName(f"{text!r} is empty or holds a blank")
    if address := _ip(text):
        return Name(Kind.IP, address)
    if _SCHEME.match(text):
        return Name(Kind.URI, _uri(text))
    if "@" in text:
        return Name(Kind.EMAIL, _email(text))
    return Name(Kind.DNS, _dns(text))


def parse_names(texts: Iterable[str]) -> tuple[Name, ...]:
    """Read several names, each kept once, in their order: the first is the subject."""
    return tuple(dict.fromkeys(parse_name(text) for text in texts))


def _ip(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise InvalidName(f"{text!r} has a zone, which no certificate carries: leave it out")
        # step-ca writes an IPv4 address in its four bytes, however it was asked for.
        return str(address.ipv4_mapped or address)
    return str(address)


def _uri(text: str) -> str:
    scheme, _, rest = text.partition(":")
    scheme = scheme.lower()
    if not rest or (scheme != "urn" and (not rest.startswith("//") or len(rest) < 3)):
        raise InvalidName(f"{text!r} is no name: a DNS name has no port, and a URI reads scheme://…")
    if not _URI_REST.fullmatch(rest):
        raise InvalidName(f"{text!r} is no URI (RFC 3986): write other characters as %XX, and no '#' at its end")
    if rest.startswith("//") and not _AUTHORITY.fullmatch(re.split(r"[/?#]", rest[2:], maxsplit=1)[0]):
        raise InvalidName(f"{text!r} is no URI with a host that can be: write scheme://host/… or scheme://host:port/…")
    return f"{scheme}:{rest}"


def _email(text: str) -> str:
    local, _, domain = text.rpartition("@")
    if not _EMAIL_LOCAL.fullmatch(local):
        raise InvalidName(f"{text!r} is no e-mail address: it reads somebody@example.com")
    if domain.startswith("*"):
        raise InvalidName(f"{text!r} is no e-mail address: its domain holds a wildcard")
    return f"{local}@{_dns(domain)}"


def _dns(text: str) -> str:
    name = text.lower()
    host = name.removeprefix("*.")
    labels = host.split(".")
    if name.endswith("."):
        raise InvalidName(f"{text!r} ends with a dot: leave it out")
    if len(name) > 253:
        raise InvalidName(f"{text[:40]!r}… has {len(name)} characters: a DNS name has at most 253")
    if "*" in host:
        raise InvalidName(f"{text!r} holds a wildcard inside: only a whole first label can be '*'")
    for label in labels:
        if len(label) > 63:
            raise InvalidName(f"{text!r} has a label of {len(label)} characters: at most 63 are allowed")
        if not _LABEL.fullmatch(label):
            raise InvalidName(f"{text!r} has a label {label!r}: labels hold letters, digits and inner hyphens")
    if labels[-1].isdigit():
        raise InvalidName(f"{text!r} ends in a number but is no IP address")
    return name
