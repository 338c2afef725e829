"""Which hosts and addresses may hooks call: those that the administrator lists, and never what is near by itself.

A name is allowed by its entry, and each address that it resolves to is looked at again: whoever owns a name decides
what it resolves to.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

_NAME = re.compile(r"(\*\.)?[_0-9a-z]([-_0-9a-z]*[_0-9a-z])?(\.[_0-9a-z]([-_0-9a-z]*[_0-9a-z])?)*")
_THIS_HOST = ip_network("0.0.0.0/8")
_BROADCAST = ip_address("255.255.255.255")
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the list: a name, a pattern of names, or addresses; any port where it names none."""

    text: str
    name: str = ""
    network: IPv4Network | IPv6Network | None = None
    port: int | None = None

    def names(self, host: str, port: int) -> bool:
        """Whether it allows this name; ``*`` stands for exactly one label."""
        if self.network is not None or self.port not in (None, port):
            return False
        if self.name.startswith("*."):
            label, dot, rest = host.partition(".")
            return bool(label and dot) and rest == self.name[2:]
        return host == self.name

    def covers(self, address: Address, port: int) -> bool:
        """Whether it names this very address, or a network that holds it."""
        return self.network is not None and self.port in (None, port) and address in self.network


Allowed = tuple[Entry, ...]


def parse_entry(text: str) -> Entry:
    """Read one entry; ValueError says what would be right."""
    host, port = _split(text)
    if port is not None and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r}: a port is a number from 1 to 65535")
    number = int(port) if port else None
    try:
        return Entry(text=text, network=ip_network(host), port=number)
    except ValueError:
        name = host.lower()
    if not _NAME.fullmatch(name) or name.replace(".", "").isdecimal():
        raise ValueError(
            f"{text!r} is no host: write a name, *.NAME, an IP address or a network such as 10.1.0.0/16, and :PORT "
            "after it where only one port is meant"
        )
    return Entry(text=text, name=name, port=number)


def _split(text: str) -> tuple[str, str | None]:
    """Host and port; an IPv6 address with a port stands in brackets."""
    if text.startswith("[") and "]" in text:
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":") if rest else None
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, None


def is_listed(allowed: Allowed, host: str, port: int) -> bool:
    """Whether the list allows this host as it stands in a URL."""
    address = address_of(host)
    if address is None:
        return any(entry.names(host, port) for entry in allowed)
    return any(entry.covers(address, port) for entry in allowed)


def nearness(address: Address, api_server: Collection[Address]) -> str | None:
    """What makes an address one that only an entry of its own allows; None for all others."""
    if address in api_server:
        return "the API server's address"
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_unspecified or (isinstance(address, IPv4Address) and address in _THIS_HOST):
        return "an unspecified address"
    if address.is_multicast or address == _BROADCAST:
        return "a multicast address"
    return None


def objection(allowed: Allowed, address: Address, port: int, api_server: Collection[Address]) -> str | None:
    """Why a host that is listed is not called at this address; None where it may be."""
    if any(entry.covers(address, port) for entry in allowed):
        return None
    return nearness(address, api_server)


def address_of(host: str) -> Address | None:
    """The address that a host is, None for a name.

    An IPv6 address that only wraps an IPv4 one (mapped, 6to4, NAT64) counts as that one: this is where it leads.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
