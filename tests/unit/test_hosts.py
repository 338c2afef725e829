"""Guards: the operator calls what the list names, and nothing that is near it unless the list names just that."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from certrenewal.domain.hosts import address_of, is_listed, objection, parse_entry

API = frozenset({ip_address("10.96.0.1")})


@pytest.mark.parametrize(
    ("entry", "host", "port", "listed"),
    [
        ("a.example.com", "a.example.com", 443, True),
        ("A.Example.com", "a.example.com", 8443, True),
        ("a.example.com", "b.a.example.com", 443, False),
        ("a.example.com", "a.example.com.evil.org", 443, False),
        ("a.example.com:8443", "a.example.com", 8443, True),
        ("a.example.com:8443", "a.example.com", 443, False),
        ("*.example.com", "a.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("*.example.com", "a.b.example.com", 443, False),
        ("*.example.com", "aexample.com", 443, False),
        ("*.example.com:8443", "a.example.com", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:8443", "10.1.2.3", 443, False),
        ("10.1.0.0/16", "10.1.2.3", 443, True),
        ("10.1.0.0/16", "10.2.2.3", 443, False),
        ("10.1.0.0/16", "a.example.com", 443, False),
        ("*.2.3.4", "1.2.3.4", 443, False),
        ("fd00::1", "fd00::1", 443, True),
        ("[fd00::1]:8443", "fd00::1", 8443, True),
        ("[fd00::1]:8443", "fd00::1", 443, False),
        ("fd00::/8", "fd12::1", 443, True),
        ("127.0.0.1", "::ffff:127.0.0.1", 443, True),
    ],
)
def test_an_entry_lists_what_it_names(entry: str, host: str, port: int, listed: bool) -> None:
    assert is_listed((parse_entry(entry),), host, port) is listed


def test_an_empty_list_lists_nothing() -> None:
    assert not is_listed((), "a.example.com", 443)


@pytest.mark.parametrize(
    "text",
    ["", "*", "*.", "a.*.com", "https://a.example.com", "a.example.com/", "a b", "a:0", "a:65536", "a:x", "2130706433",
     "10.1.0.0/33", "[::1", "[::1]x", "a..b", "-a", "10.1.2.3/16"],
)  # fmt: skip
def test_what_is_no_entry_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no host|a port is"):
        parse_entry(text)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1", "a loopback address"),
        ("127.8.8.8", "a loopback address"),
        ("::1", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("fe80::1%eth0", "a link-local address"),
        ("0.0.0.0", "an unspecified address"),
        ("0.1.2.3", "an unspecified address"),
        ("::", "an unspecified address"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("255.255.255.255", "a multicast address"),
        ("10.96.0.1", "the API server's address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("::ffff:169.254.169.254", "a link-local address"),
        ("::ffff:10.96.0.1", "the API server's address"),
        ("2002:7f00:1::", "a loopback address"),
        ("64:ff9b::7f00:1", "a loopback address"),
        ("64:ff9b::a9fe:a9fe", "a link-local address"),
        ("10.1.2.3", None),
        ("192.168.1.1", None),
        ("93.184.216.34", None),
        ("fd00::1", None),
        ("2606:2800:220:1::1", None),
        ("::ffff:93.184.216.34", None),
        ("64:ff9b::5db8:d822", None),
    ],
)
def test_what_is_near_is_left_out_however_it_is_written(address: str, words: str | None) -> None:
    found = address_of(address)
    assert found is not None

    assert objection((parse_entry("a.example.com"),), found, 443, API) == words


@pytest.mark.parametrize(
    ("entry", "address", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("127.0.0.0/8", "127.0.0.1", True),
        ("127.0.0.1:443", "127.0.0.1", True),
        ("127.0.0.1:8443", "127.0.0.1", False),
        ("127.0.0.2", "127.0.0.1", False),
        ("localhost", "127.0.0.1", False),
        ("10.96.0.1", "10.96.0.1", True),
        ("kubernetes.default.svc", "10.96.0.1", False),
        ("::1", "127.0.0.1", False),
    ],
)
def test_only_an_entry_of_its_own_lets_one_in(entry: str, address: str, allowed: bool) -> None:
    assert (objection((parse_entry(entry),), ip_address(address), 443, API) is None) is allowed


def test_a_name_is_no_address() -> None:
    assert address_of("a.example.com") is None
    assert address_of("2130706433") is None
