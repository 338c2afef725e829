"""Guards: every text is one valid name of one kind or refused with a reason, before the CA is asked (contract §4)."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.domain.names import InvalidName, Kind, Name, parse_name, parse_names

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
DNS_NAMES = st.lists(LABELS, min_size=1, max_size=5).map(lambda labels: ".".join([*labels, "com"]))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        pytest.param("web.shop.svc", Kind.DNS, "web.shop.svc", id="dns"),
        pytest.param("localhost", Kind.DNS, "localhost", id="one label"),
        pytest.param("WEB.Shop.SVC", Kind.DNS, "web.shop.svc", id="dns is written in lower case"),
        pytest.param("*.shop.example.com", Kind.DNS, "*.shop.example.com", id="wildcard as the first label"),
        pytest.param("_sip._tcp.example.com", Kind.DNS, "_sip._tcp.example.com", id="underscores, as in SRV names"),
        pytest.param("xn--bcher-kva.example", Kind.DNS, "xn--bcher-kva.example", id="IDNA in its ASCII form"),
        pytest.param("3scale.example", Kind.DNS, "3scale.example", id="a label that begins with a digit"),
        pytest.param(f"{'a' * 63}.example", Kind.DNS, f"{'a' * 63}.example", id="label of 63"),
        pytest.param("10.1.2.3", Kind.IP, "10.1.2.3", id="IPv4"),
        pytest.param("2001:DB8:0:0::1", Kind.IP, "2001:db8::1", id="IPv6 in its short form"),
        pytest.param("::1", Kind.IP, "::1", id="IPv6 loopback"),
        pytest.param("::ffff:10.1.2.3", Kind.IP, "10.1.2.3", id="an IPv4 address written as IPv6 is issued as IPv4"),
        pytest.param("Ann.Lee@Example.COM", Kind.EMAIL, "Ann.Lee@example.com", id="only the domain of an e-mail folds"),
        pytest.param("spiffe://td/ns/shop", Kind.URI, "spiffe://td/ns/shop", id="URI"),
        pytest.param("https://ann@example.com/x", Kind.URI, "https://ann@example.com/x", id="URI with an @"),
        pytest.param("SPIFFE://td/X", Kind.URI, "spiffe://td/X", id="URI, its scheme in other letters"),
        pytest.param(
            "https://[2001:db8::1]:8443/a?b=[c]#d", Kind.URI, "https://[2001:db8::1]:8443/a?b=[c]#d", id="URL"
        ),
        pytest.param("urn:uuid:1b4e28ba", Kind.URI, "urn:uuid:1b4e28ba", id="URN"),
    ],
)
def test_a_name_is_sorted_into_its_kind_and_made_canonical(text: str, kind: Kind, value: str) -> None:
    name = parse_name(text)

    assert name == Name(kind, value)
    assert str(name) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("", "empty or holds a blank", id="empty"),
        pytest.param("web shop.svc", "empty or holds a blank", id="blank"),
        pytest.param("web.shop.svc\n", "empty or holds a blank", id="line break"),
        pytest.param("web\x00.shop", "empty or holds a blank", id="NUL"),
        pytest.param("web.shop.svc.", "ends with a dot: leave it out", id="trailing dot"),
        pytest.param(".", "ends with a dot", id="only a dot"),
        pytest.param("web..svc", "has a label ''", id="empty label"),
        pytest.param(".shop.svc", "has a label ''", id="leading dot"),
        pytest.param("bücher.example", "xn--", id="not ASCII"),
        pytest.param("web.ѕhop.svc", "xn--", id="Cyrillic look-alike"),
        pytest.param("web。shop", "xn--", id="ideographic full stop"),
        pytest.param("*", "wildcard inside", id="wildcard alone"),
        pytest.param("*.*.example.com", "only a whole first label", id="two wildcards"),
        pytest.param("web.*.svc", "only a whole first label", id="inner wildcard"),
        pytest.param("w*.example.com", "only a whole first label", id="wildcard within a label"),
        pytest.param("**.example.com", "only a whole first label", id="the policy's glob"),
        pytest.param("*.", "ends with a dot", id="wildcard of nothing"),
        pytest.param("-web.shop", "inner hyphens", id="leading hyphen"),
        pytest.param("web-.shop", "inner hyphens", id="trailing hyphen"),
        pytest.param("a/b", "labels hold letters", id="slash"),
        pytest.param(f"{'a' * 64}.example", "at most 63", id="label of 64"),
        pytest.param(".".join(["a" * 60] * 5), "at most 253", id="304 characters"),
        pytest.param("10.1.2", "ends in a number", id="half an IP"),
        pytest.param("10.1.2.256", "ends in a number", id="byte too large"),
        pytest.param("10.1.2.003", "ends in a number", id="leading zeros, which some read as octal"),
        pytest.param("10.1.0.0/16", "labels hold letters", id="a network"),
        pytest.param("fe80::1%eth0", "zone", id="IPv6 with a zone, which no certificate can carry"),
        pytest.param("web.shop.svc:8443", "has no port", id="port"),
        pytest.param("https:web", "a URI reads scheme://", id="URI without authority"),
        pytest.param("https://", "a URI reads scheme://", id="URI of only a scheme"),
        pytest.param("https://a/{id}", "write other characters as %XX", id="URI with braces, which Go rewrites"),
        pytest.param("https://a/b|c", "write other characters as %XX", id="URI with a bar"),
        pytest.param("https://a/%zz", "write other characters as %XX", id="URI with half an escape"),
        pytest.param("https://a/#", "no '#' at its end", id="URI with an empty fragment"),
        pytest.param("https://a:web/x", "scheme://host:port/", id="URI with a port in words"),
        pytest.param("https://a@b@c/x", "scheme://host:port/", id="URI with two users"),
        pytest.param("urn:", "a URI reads scheme://", id="URN of nothing"),
        pytest.param("@example.com", "somebody@example.com", id="nobody's e-mail"),
        pytest.param("ann@", "has a label ''", id="e-mail to nowhere"),
        pytest.param("ann@*.example.com", "its domain holds a wildcard", id="e-mail to everywhere"),
        pytest.param("a@b@example.com", "somebody@example.com", id="two at signs"),
    ],
)
def test_what_is_no_name_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(InvalidName, match=re.escape(why)):
        parse_name(text)


def test_names_keep_their_order_and_each_is_kept_once() -> None:
    found = parse_names(["web.shop", "10.1.2.3", "WEB.shop", "a.shop"])

    assert [str(name) for name in found] == ["web.shop", "10.1.2.3", "a.shop"]


def test_one_bad_name_spoils_the_list() -> None:
    with pytest.raises(InvalidName, match=r"a\.\.b"):
        parse_names(["web.shop", "a..b"])


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_refused_and_nothing_else(text: str) -> None:
    try:
        name = parse_name(text)
    except InvalidName as refusal:
        assert str(refusal)
    else:
        assert name.value.isascii()
        assert not set(name.value) & set(string.whitespace)


@given(DNS_NAMES | st.ip_addresses().map(str) | st.emails(domains=DNS_NAMES))
def test_reading_the_canonical_form_again_changes_nothing(text: str) -> None:
    try:
        name = parse_name(text)
    except InvalidName:  # a quoted or over-long local part
        return

    assert parse_name(str(name)) == name


@given(DNS_NAMES, st.data())
def test_case_makes_no_other_dns_name(text: str, data: st.DataObject) -> None:
    mixed = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in text)

    assert parse_name(mixed) == parse_name(text)
