"""Guards: nobody gets a name that is neither a service name of their namespace nor allowed by a rule (contract §4)."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.domain.names import parse_name
from certrenewal.domain.policy import UNBOUNDED, Rule, Verdict, judge, parse_pattern, parse_selector
from tests.unit.builders import a_rule, an_asker, names

HOUR = timedelta(hours=1)


def verdict(
    *asked: str, namespace: str = "shop", rules: tuple[Rule, ...] = (), duration: timedelta | None = None, **asker: Any
) -> Verdict:
    return judge(names(*asked), duration, asker=an_asker(namespace, **asker), policy=rules, authority="internal")


def is_allowed(*asked: str, **circumstances: Any) -> bool:
    return verdict(*asked, **circumstances).denial is None


# -- a namespace's own service names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("web.shop", id="NAME.NAMESPACE"),
        pytest.param("web.shop.svc", id="svc"),
        pytest.param("web.shop.svc.cluster.local", id="cluster domain"),
        pytest.param("WEB.SHOP.SVC", id="upper case"),
        pytest.param("web-0.web.shop.svc", id="pod of a headless service"),
        pytest.param("web-0.web.shop.svc.cluster.local", id="the same in full"),
        pytest.param("*.web.shop.svc", id="all pods of a headless service"),
        pytest.param("*.web.shop.svc.cluster.local", id="the same in full"),
        pytest.param("*.shop.svc", id="all services of the namespace"),
    ],
)
def test_a_namespace_may_always_ask_for_its_own_service_names(name: str) -> None:
    assert is_allowed(name, rules=())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("web.bank", id="another namespace"),
        pytest.param("web.bank.svc", id="another namespace, svc"),
        pytest.param("web.bank.svc.cluster.local", id="another namespace in full"),
        pytest.param("shop", id="the namespace itself"),
        pytest.param("shop.svc", id="the namespace itself, svc"),
        pytest.param("shop.svc.cluster.local", id="the namespace itself in full"),
        pytest.param("web.workshop", id="a namespace that ends alike"),
        pytest.param("web.workshop.svc", id="a namespace that ends alike, svc"),
        pytest.param("web.work-shop.svc", id="a namespace that ends alike after a hyphen"),
        pytest.param("web.shop2.svc", id="a namespace that begins alike"),
        pytest.param("shop.web.svc", id="service and namespace exchanged"),
        pytest.param("web.shop.bank.svc", id="a pod in another namespace, its service called like ours"),
        pytest.param("web.shop.svc.bank.svc", id="our suffix within another namespace"),
        pytest.param("web.shop.svc.evil.com", id="our suffix within a public domain"),
        pytest.param("web.shop.svc.cluster.local.evil.com", id="the full name within a public domain"),
        pytest.param("web.shop.svc.other.local", id="another cluster domain"),
        pytest.param("web.shop.cluster.local", id="svc left out"),
        pytest.param("web.shop.pod.cluster.local", id="a pod's address record"),
        pytest.param("a.b.c.shop.svc", id="deeper than a pod"),
        pytest.param("web.shop.com", id="a public domain"),
        pytest.param("a.web.shop", id="three labels without svc, as a public name could be"),
        pytest.param("*.shop", id="a wildcard over what could be a public domain"),
        pytest.param("*.svc", id="every namespace"),
        pytest.param("*.cluster.local", id="the whole cluster"),
        pytest.param("*.svc.cluster.local", id="every namespace in full"),
        pytest.param("*.bank.svc", id="all of another namespace"),
        pytest.param("web", id="a bare name, which resolves in each namespace to another service"),
        pytest.param("localhost", id="localhost"),
        pytest.param("kubernetes.default.svc", id="the API server"),
        pytest.param("10.96.0.1", id="an address"),
        pytest.param("ann@shop.svc", id="an e-mail at our namespace"),
        pytest.param("ann@web.shop.svc", id="an e-mail at our service"),
        pytest.param("spiffe://web.shop.svc", id="a URI at our service"),
        pytest.param("spiffe://web.shop.svc/x", id="a URI with a path at our service"),
        pytest.param("urn:web.shop", id="a URN that ends like our service"),
        pytest.param("web.xn--shop-0ra.svc", id="IDNA look-alike"),
    ],
)
def test_everything_else_needs_a_rule(name: str) -> None:
    assert not is_allowed(name, rules=())


def test_the_cluster_domain_is_a_setting() -> None:
    assert is_allowed("web.shop.svc.k8s.corp", cluster_domain="k8s.corp")
    assert not is_allowed("web.shop.svc.cluster.local", cluster_domain="k8s.corp")


LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@given(service=LABEL, mine=LABEL, theirs=LABEL)
def test_service_names_belong_to_exactly_their_namespace(service: str, mine: str, theirs: str) -> None:
    for suffix in ("", ".svc", ".svc.cluster.local"):
        allowed = is_allowed(f"{service}.{theirs}{suffix}", namespace=mine)
        assert allowed == (mine == theirs)


# -- what a rule allows --------------------------------------------------------------------------------------------

ALLOWED = [
    pytest.param("api.example.com", "api.example.com", id="literal"),
    pytest.param("API.Example.com", "api.example.com", id="case does not count"),
    pytest.param("*.example.com", "api.example.com", id="one label"),
    pytest.param("*.example.com", "*.example.com", id="the wildcard itself"),
    pytest.param("*.*.example.com", "a.b.example.com", id="two labels"),
    pytest.param("*.*.example.com", "*.b.example.com", id="a wildcard and a label"),
    pytest.param("api.*.example.com", "api.eu.example.com", id="a label in the middle"),
    pytest.param("**.example.com", "api.example.com", id="one or more: one"),
    pytest.param("**.example.com", "a.b.c.example.com", id="one or more: three"),
    pytest.param("**.example.com", "*.b.example.com", id="one or more: a wildcard"),
    pytest.param("bank", "bank", id="a bare name listed literally"),
    pytest.param("web.bank", "web.bank", id="another namespace's service listed literally"),
    pytest.param("web.bank.svc", "web.bank.svc", id="the same, svc"),
    pytest.param("web.bank.svc.cluster.local", "web.bank.svc.cluster.local", id="the same in full"),
    pytest.param("10.1.2.3", "10.1.2.3", id="address"),
    pytest.param("10.1.0.0/16", "10.1.255.255", id="last of a network"),
    pytest.param("10.1.2.3/16", "10.1.0.0", id="a network written with host bits"),
    pytest.param("2001:db8::/32", "2001:db8:1::1", id="IPv6 network"),
    pytest.param("10.1.0.0/16", "::ffff:10.1.2.3", id="an IPv4 address written as IPv6"),
    pytest.param("ann@example.com", "ann@EXAMPLE.com", id="e-mail"),
    pytest.param("*@example.com", "ann@example.com", id="everybody at a domain"),
    pytest.param("spiffe://td/ns/shop/*", "spiffe://td/ns/shop/web", id="URI prefix"),
    pytest.param("spiffe://td/ns/shop/*", "spiffe://td/ns/shop/a..b/..c", id="dots within a segment"),
    pytest.param("spiffe://td/ns/shop", "spiffe://td/ns/shop", id="URI"),
    pytest.param("urn:uuid:*", "urn:uuid:1b4e28ba", id="URN prefix"),
]

DENIED = [
    pytest.param("api.example.com", "api.example.com.evil.com", id="literal as a prefix"),
    pytest.param("example.com", "evil-example.com", id="literal as a suffix"),
    pytest.param("*.example.com", "example.com", id="one label: none"),
    pytest.param("*.example.com", "a.b.example.com", id="one label: two"),
    pytest.param("*.example.com", "api.evil-example.com", id="one label: ends alike"),
    pytest.param("*.example.com", "api.example.org", id="one label: elsewhere"),
    pytest.param("**.example.com", "example.com", id="one or more: none"),
    pytest.param("*.example.com", "api.example.com.evil.com", id="one label: our suffix within"),
    pytest.param("**.example.com", "evilexample.com", id="one or more: ends alike"),
    pytest.param("**.example.com", "www.evilexample.com", id="one or more: ends alike below a label"),
    pytest.param("**.example.com", "api.example.com.evil.com", id="one or more: our suffix within"),
    pytest.param("api.*.example.com", "www.eu.example.com", id="another first label"),
    pytest.param("*.bank", "web.bank", id="glob over a namespace"),
    pytest.param("*.bank.svc", "web.bank.svc", id="glob over a namespace, svc"),
    pytest.param("*.*.svc", "web.bank.svc", id="glob over all namespaces"),
    pytest.param("**.svc", "web.bank.svc", id="deep glob over all namespaces"),
    pytest.param("**.svc", "*.bank.svc", id="deep glob, wildcard name"),
    pytest.param("*.bank.svc.cluster.local", "web.bank.svc.cluster.local", id="glob over a namespace in full"),
    pytest.param("**.cluster.local", "web.bank.svc.cluster.local", id="deep glob over the cluster domain"),
    pytest.param("**.local", "web.bank.svc.cluster.local", id="deep glob over what the cluster domain is in"),
    pytest.param("**.local", "ip-10-0-0-1.bank.pod.cluster.local", id="deep glob over pods"),
    pytest.param("web.*", "web.bank", id="the same service in any namespace"),
    pytest.param("*.com", "web.com", id="two labels are NAME.NAMESPACE too"),
    pytest.param("web.bank", "web.bank.svc", id="literal without svc"),
    pytest.param("*.example.com", "10.1.2.3", id="DNS glob, an address"),
    pytest.param("10.1.0.0/16", "10.2.0.1", id="outside the network"),
    pytest.param("10.1.0.0/16", "2001:db8::1", id="IPv4 network, IPv6 address"),
    pytest.param("0.0.0.0/0", "::1", id="all of IPv4, IPv6 address"),
    pytest.param("::/0", "::ffff:10.1.2.3", id="all of IPv6, IPv4 address in disguise"),
    pytest.param("*@example.com", "ann@example.org", id="another domain"),
    pytest.param("*@example.com", "ann@mail.example.com", id="a subdomain"),
    pytest.param("ann@example.com", "bob@example.com", id="somebody else"),
    pytest.param("ann@example.com", "*@example.com", id="everybody, where one is allowed"),
    pytest.param("*@example.com", "example.com", id="e-mail rule, DNS name"),
    pytest.param("*.example.com", "ann@api.example.com", id="DNS rule, e-mail"),
    pytest.param("spiffe://td/ns/shop/*", "spiffe://td/ns/bank/web", id="another path"),
    pytest.param("spiffe://td/ns/shop/*", "spiffe://td/ns/shop", id="the prefix without its end"),
    pytest.param("spiffe://td/ns/shop", "spiffe://td/ns/shop/web", id="literal URI as a prefix"),
    pytest.param("spiffe://td/ns/shop/*", "spiffe://td/ns/shop/../bank/web", id="a path that climbs"),
    pytest.param("spiffe://td/ns/shop/*", "spiffe://td/ns/shop/..", id="a path that climbs at its end"),
    pytest.param("spiffe://td/ns/shop/*", "spiffe://td/ns/shop/..?a", id="a path that climbs before a query"),
    pytest.param("spiffe://td/ns/shop/*", "spiffe://td/ns/shop/..#a", id="a path that climbs before a fragment"),
    pytest.param("spiffe://td/ns/shop/*", "spiffe://td/ns/shop/%2e%2E/bank", id="a path that climbs, encoded"),
    pytest.param("spiffe://td/ns/shop/*", "spiffe://td/ns/shop/.%2e/bank", id="a path that climbs, half encoded"),
    pytest.param("spiffe://td/ns/shop/*", "spiffe://td/ns/shop/..%2F..%2Fbank", id="a path that climbs, slashes too"),
    pytest.param("https://td/shop/*", "https://td/shop/x%5c..%5C..%5cbank", id="a path that climbs, backslashes"),
]


@pytest.mark.parametrize("name", ["*.lan", "*.bank.svc", "*.bank.svc.cluster.local"])
def test_a_wildcard_that_no_rule_can_allow_is_told_so(name: str) -> None:
    denial = verdict(name, rules=(a_rule(name),)).denial

    assert denial is not None
    assert "no rule can allow" in denial


@pytest.mark.parametrize(("pattern", "name"), ALLOWED)
def test_a_rule_allows_what_it_says(pattern: str, name: str) -> None:
    assert is_allowed(name, rules=(a_rule(pattern),))


@pytest.mark.parametrize(("pattern", "name"), DENIED)
def test_a_rule_allows_no_more_than_it_says(pattern: str, name: str) -> None:
    assert not is_allowed(name, rules=(a_rule(pattern),))


GLOBS = st.sampled_from(["*.*.svc", "**.svc", "**.local", "**.cluster.local", "**.svc.cluster.local", "*.*.*.*.local"])


@given(pattern=GLOBS, service=LABEL, theirs=LABEL, suffix=st.sampled_from(["", ".svc", ".svc.cluster.local"]))
def test_no_glob_reaches_into_the_service_names_of_another_namespace(
    pattern: str, service: str, theirs: str, suffix: str
) -> None:
    name = f"{service}.{theirs}{suffix}"

    assert not is_allowed(name, namespace="0-nobody-is-called-this", rules=(a_rule(pattern),))


@given(labels=st.lists(LABEL, min_size=1, max_size=4))
def test_a_star_is_one_label_and_two_stars_are_one_or_more(labels: list[str]) -> None:
    name = ".".join([*labels, "example", "com"])

    assert is_allowed(name, rules=(a_rule("*.example.com"),)) == (len(labels) == 1)
    assert is_allowed(name, rules=(a_rule("**.example.com"),))


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        pytest.param("*", "would allow everything", id="star"),
        pytest.param("**.*", "would allow everything", id="stars"),
        pytest.param("**", "wildcard inside", id="two stars alone"),
        pytest.param("a.**.com", "wildcard inside", id="two stars inside"),
        pytest.param("w*.example.com", "wildcard inside", id="star within a label"),
        pytest.param("example.com.", "ends with a dot", id="trailing dot"),
        pytest.param("*..com", "has a label ''", id="empty label"),
        pytest.param("", "empty or holds a blank", id="nothing"),
        pytest.param("bücher.example", "xn--", id="not ASCII"),
        pytest.param("10.1.0.0/33", "labels hold letters", id="no such network"),
        pytest.param("*@*.example.com", "its domain holds a wildcard", id="e-mail to everywhere"),
        pytest.param("@example.com", "somebody@example.com", id="e-mail of nobody"),
        pytest.param("spiffe://*/web", "a prefix that ends in '*'", id="star within a URI"),
        pytest.param("spiffe://td/**", "a prefix that ends in '*'", id="two stars in a URI"),
    ],
)
def test_a_pattern_that_cannot_be_read_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_pattern(pattern)


# -- whom a rule speaks of -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("globs", "namespace", "speaks"),
    [
        pytest.param(["shop"], "shop", True, id="the namespace"),
        pytest.param(["bank", "shop"], "shop", True, id="one of two"),
        pytest.param(["*"], "shop", True, id="every namespace"),
        pytest.param(["team-*"], "team-a", True, id="glob"),
        pytest.param(["team-*"], "team", False, id="glob without its end"),
        pytest.param(["team-*"], "a-team-b", False, id="glob is not found inside"),
        pytest.param(["shop"], "workshop", False, id="ends alike"),
        pytest.param(["shop"], "shop2", False, id="begins alike"),
        pytest.param([], "shop", False, id="no namespace"),
    ],
)
def test_a_rule_speaks_of_the_namespaces_it_names(globs: list[str], namespace: str, speaks: bool) -> None:
    rule = a_rule("api.example.com", namespaces=globs)

    assert is_allowed("api.example.com", namespace=namespace, rules=(rule,)) is speaks


@pytest.mark.parametrize(
    ("selector", "selects"),
    [
        pytest.param({"matchLabels": {"team": "a"}}, True, id="label"),
        pytest.param({"matchLabels": {"team": "b"}}, False, id="another value"),
        pytest.param({"matchLabels": {"team": "a", "tier": "prod"}}, False, id="one of two labels"),
        pytest.param({"matchLabels": {"owner": "a"}}, False, id="a label that is absent"),
        pytest.param({"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}, True, id="In"),
        pytest.param({"matchExpressions": [{"key": "team", "operator": "In", "values": ["b"]}]}, False, id="not In"),
        pytest.param({"matchExpressions": [{"key": "x", "operator": "In", "values": ["a"]}]}, False, id="In, absent"),
        pytest.param({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["b"]}]}, True, id="NotIn"),
        pytest.param({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}, False, id="is in"),
        pytest.param(
            {"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["a"]}]}, True, id="NotIn, absent"
        ),
        pytest.param({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, True, id="Exists"),
        pytest.param({"matchExpressions": [{"key": "x", "operator": "Exists"}]}, False, id="does not exist"),
        pytest.param({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}, True, id="DoesNotExist"),
        pytest.param({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, False, id="exists"),
        pytest.param(
            {"matchLabels": {"team": "a"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]},
            False,
            id="labels and expressions must both hold",
        ),
        pytest.param({}, True, id="empty: every namespace, as in Kubernetes"),
    ],
)
def test_a_rule_speaks_of_the_namespaces_it_selects(selector: dict[str, Any], selects: bool) -> None:
    rule = a_rule("api.example.com", namespaces=(), selector=parse_selector(selector))

    assert is_allowed("api.example.com", rules=(rule,), team="a") is selects


def test_a_selector_with_an_unknown_operator_selects_nobody() -> None:
    selector = parse_selector({"matchExpressions": [{"key": "team", "operator": "Like", "values": ["a"]}]})

    with pytest.raises(ValueError, match="write In, NotIn, Exists or DoesNotExist"):
        selector.selects({"team": "a"})


# -- for how long --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "limits", "allowed", "max_duration"),
    [
        pytest.param(None, [None], True, None, id="no limit"),
        pytest.param(None, [24 * HOUR], True, 24 * HOUR, id="the CA's default, told the limit"),
        pytest.param(24 * HOUR, [24 * HOUR], True, 24 * HOUR, id="just the limit"),
        pytest.param(25 * HOUR, [24 * HOUR], False, None, id="more than the limit"),
        pytest.param(25 * HOUR, [24 * HOUR, 48 * HOUR], True, 48 * HOUR, id="the first rule that allows decides"),
        pytest.param(25 * HOUR, [24 * HOUR, None], True, None, id="a rule without limit"),
        pytest.param(1 * HOUR, [24 * HOUR, 48 * HOUR], True, 24 * HOUR, id="the first of two that would allow"),
    ],
)
def test_a_rule_may_limit_how_long(
    asked: timedelta | None, limits: list[timedelta | None], allowed: bool, max_duration: timedelta | None
) -> None:
    rules = tuple(a_rule("api.example.com", max_duration=limit) for limit in limits)

    answer = verdict("api.example.com", rules=rules, duration=asked)

    assert (answer.denial is None) is allowed
    assert answer.max_duration == max_duration


def test_the_strictest_of_the_rules_used_counts() -> None:
    rules = (a_rule("a.example.com", max_duration=24 * HOUR), a_rule("b.example.com", max_duration=2 * HOUR))

    assert verdict("a.example.com", "b.example.com", rules=rules).max_duration == 2 * HOUR


def test_own_service_names_have_no_limit_of_duration() -> None:
    answer = verdict("web.shop.svc", rules=(a_rule("web.shop.svc", max_duration=HOUR),), duration=24 * HOUR)

    assert answer == Verdict()


# -- what users read -----------------------------------------------------------------------------------------------


def test_a_denial_names_the_name_and_the_rule_to_add() -> None:
    denial = verdict("web.shop.svc", "api.example.com", "www.example.com", rules=()).denial

    assert denial is not None
    assert "'api.example.com'" in denial
    assert "in namespace shop" in denial
    assert "spec.policy of CertAuthority internal" in denial
    assert '{namespaces: ["shop"], names: ["api.example.com"]}' in denial


def test_the_rule_that_a_denial_tells_to_add_helps() -> None:
    for name in ("api.example.com", "*.example.com", "web.bank.svc", "10.1.2.3", "ann@example.com", "spiffe://td/x"):
        assert not is_allowed(name)
        assert is_allowed(name, rules=(a_rule(name, namespaces=["shop"]),))


def test_a_denial_for_its_length_names_the_limit_and_what_was_asked() -> None:
    denial = verdict("api.example.com", rules=(a_rule("api.example.com", max_duration=24 * HOUR),), duration=36 * HOUR)

    assert denial.denial is not None
    assert "'api.example.com' is allowed for 24h at most and 36h is asked for" in denial.denial
    assert "raise maxDuration" in denial.denial
    assert "CertAuthority internal" in denial.denial


def test_every_name_is_judged() -> None:
    rules = (a_rule("*.example.com"),)

    assert is_allowed("web.shop.svc", "a.example.com", "b.example.com", rules=rules)
    assert not is_allowed("web.shop.svc", "a.example.com", "b.example.org", rules=rules)
    assert not is_allowed("b.example.org", "web.shop.svc", "a.example.com", rules=rules)


@pytest.mark.parametrize(("account", "allowed"), [("web", True), ("web-1", True), ("webs", False), ("", False)])
def test_a_rule_for_service_accounts_is_for_nobody_else(account: str, allowed: bool) -> None:
    rules = (a_rule("*.example.com", accounts=("web", "web-*")),)
    asker = replace(an_asker(), account=account)

    found = judge(names("www.example.com"), None, asker=asker, policy=rules, authority="internal")

    assert (found.denial is None) is allowed


def test_a_rule_with_a_longest_life_allows_nothing_that_may_live_for_ever() -> None:
    rules = (a_rule("*.example.com", max_duration=HOUR),)

    assert not is_allowed("www.example.com", rules=rules, duration=UNBOUNDED)
    assert is_allowed("www.example.com", rules=(*rules, a_rule("www.example.com")), duration=UNBOUNDED)
    assert is_allowed("web.shop.svc", rules=rules, duration=UNBOUNDED)


@given(st.lists(st.sampled_from(["api.example.com", "a.b.example.com", "web.bank.svc", "10.1.2.3", "ann@example.com"])))
def test_without_a_rule_nothing_but_own_names_is_allowed(asked: list[str]) -> None:
    assert is_allowed(*asked) == (not asked)


def test_names_are_compared_in_their_canonical_form() -> None:
    assert parse_pattern("API.example.com").text == parse_name("Api.Example.Com").value


@pytest.mark.parametrize("name", ["*.bank.svc", "*.bank.svc.cluster.local", "*.bank"])
def test_a_glob_grants_no_wildcard_over_another_namespace(name: str) -> None:
    pattern = parse_pattern(name) if name.count(".") > 1 else parse_pattern("*.bank.svc")

    assert not pattern.allows(parse_name(name), cluster_domain="cluster.local")


@pytest.mark.parametrize("pattern", ["**.*.example.com", "10.1.*.*", "*.*"])
def test_a_pattern_that_could_never_match_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=re.escape(pattern)):
        parse_pattern(pattern)
