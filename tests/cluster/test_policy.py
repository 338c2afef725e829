"""Who may have which name, told on the running system and lifted by itself; the one who may not costs the CA nothing."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

from tests.cluster.site import PASSWORD_SECRET, SYSTEM, Site, condition_of
from tests.testbed import manifests
from tests.testbed.api import ApiError
from tests.testbed.faults import HttpProxy
from tests.testbed.operators import Operator
from tests.testbed.processes import until

PASSWORD = (SYSTEM, PASSWORD_SECRET)
EXAMPLES: Mapping[str, Any] = {"namespaces": ["*"], "names": ["*.example.com"]}

Authority = Callable[..., str]


@pytest.fixture
def authority(site: Site) -> Iterator[Authority]:
    """A factory of CertAuthorities with these rules, removed afterwards; each gives its name."""
    made: list[str] = []

    def make(*rules: Mapping[str, Any]) -> str:
        name = f"own-{secrets.token_hex(3)}"
        site.plane.create(manifests.cert_authority(name, site.ca, password=PASSWORD, policy=rules))
        made.append(name)
        return name

    yield make
    for name in made:
        site.plane.delete("certauthorities", "", name)


def set_policy(site: Site, authority: str, *rules: Mapping[str, Any], ready: str = "True") -> None:
    """Replace the rules, and wait until the CertAuthority's Ready tells of them."""
    site.plane.merge_patch("certauthorities", "", authority, {"spec": {"policy": list(rules)}})

    def current() -> bool:
        found = site.plane.get("certauthorities", "", authority)
        told = condition_of(found.get("status") or {}, "Ready")
        return (told.get("status"), told.get("observedGeneration")) == (ready, found["metadata"]["generation"])

    until(current, 20, f"CertAuthority {authority} has its new rules")


def renew_denied(site: Site, namespace: str, name: str, value: str = "1") -> None:
    """Ask for a renewal: ``name`` is denied visibly, nothing is asked of the CA, and the certificate stays."""
    data, calls = site.secret(namespace)["data"], site.calls()
    site.plane.annotate("certrenewals", namespace, "web-tls", renew_now=value)
    message = site.await_condition(namespace, status="True", reason="NameDenied")
    failure = site.status(namespace)["failure"]

    assert repr(name) in message
    assert (failure["reason"], failure["message"]) == ("NameDenied", message)
    assert site.calls() == calls
    assert site.secret(namespace)["data"] == data


def test_a_policy_that_was_tightened_denies_the_next_renewal_until_it_is_widened(
    site: Site, namespace: str, authority: Authority
) -> None:
    own = authority(EXAMPLES)
    site.order(namespace, authority=own, names="api.example.com,www.example.com")
    first = site.await_ready(namespace)

    set_policy(site, own, {"namespaces": ["*"], "names": ["api.example.com"]})
    untouched = site.condition(namespace)
    renew_denied(site, namespace, "www.example.com")
    set_policy(site, own, EXAMPLES)
    site.await_new(namespace, after=first)

    assert untouched == ("True", "Issued")
    assert site.condition(namespace) == ("True", "Renewed")
    assert "failure" not in site.status(namespace)


def test_a_certificate_that_was_taken_over_is_judged_at_its_renewal_too(
    site: Site, namespace: str, authority: Authority
) -> None:
    own = authority(EXAMPLES)
    crt, key = site.ca.certificate("www.example.org", ("www.example.org", "www.example.com"))
    wish = manifests.prefixed(renew="true", authority=own)
    site.plane.create(manifests.tls_secret("web-tls", namespace, crt, key, site.ca.root_pem, annotations=wish))
    first = site.await_ready(namespace)

    renew_denied(site, namespace, "www.example.org")
    set_policy(site, own, EXAMPLES, {"namespaces": ["*"], "names": ["www.example.org"]})
    site.await_new(namespace, after=first)

    assert site.status(namespace)["lastRenewal"]["route"] == "RenewToken"


def test_a_namespace_is_selected_by_labels_that_come_and_go(site: Site, namespace: str, authority: Authority) -> None:
    """A second certificate, for those without the label alone, shows when a change has been seen."""
    without = {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}
    own = authority(
        {"namespaceSelector": {"matchLabels": {"team": "shop"}}, "names": ["*.example.com"]},
        {"namespaceSelector": without, "names": ["*.example.org"]},
    )
    site.order(namespace, authority=own, names="www.example.com")
    site.await_condition(namespace, status="False", reason="NameDenied")

    site.plane.merge_patch("namespaces", "", namespace, {"metadata": {"labels": {"team": "shop"}}})
    site.await_ready(namespace)
    site.order(namespace, "unlabelled", authority=own, names="www.example.org")
    site.await_condition(namespace, "unlabelled", status="False", reason="NameDenied")
    site.plane.merge_patch("namespaces", "", namespace, {"metadata": {"labels": {"team": None}}})
    site.await_ready(namespace, "unlabelled")

    renew_denied(site, namespace, "www.example.com")


def test_nobody_is_judged_before_the_labels_of_their_namespace_are_known(
    site: Site, namespace: str, authority: Authority, slow_api: tuple[HttpProxy, Operator]
) -> None:
    """Without them, a rule for a label would allow nobody, and one for those that have it not, everybody."""
    proxy, _ = slow_api
    without = {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}
    own = authority(
        {"namespaceSelector": {"matchLabels": {"team": "shop"}}, "names": ["*.example.com"]},
        {"namespaceSelector": without, "names": ["*.example.org"]},
    )
    site.order(namespace, authority=own, names="www.example.org")
    site.await_ready(namespace)
    proxy.hold_streams(r"/api/v1/namespaces\?.*watch=true")
    fresh = f"fresh-{secrets.token_hex(4)}"

    site.plane.create(manifests.namespace(fresh, team="shop"))
    site.order(fresh, "allowed", authority=own, names="www.example.com")
    site.order(fresh, "denied", authority=own, names="www.example.org")
    until(lambda: len(site.plane.objects("certrenewals", fresh)) == 2, 20, "both are seen")
    site.order(namespace, "later")
    site.await_ready(namespace, "later")
    unjudged = [site.status(fresh, name) for name in ("allowed", "denied")]
    proxy.release_streams()
    site.await_ready(fresh, "allowed")
    site.await_condition(fresh, "denied", status="False", reason="NameDenied")

    assert unjudged == [{}, {}]
    assert not site.events(fresh, "allowed", "NameDenied")
    assert not site.secret(fresh, "denied").get("data")
    site.plane.delete("namespaces", "", fresh)


@pytest.mark.parametrize(
    ("names", "reason", "told"),
    [
        ("web.kube-system", "NameDenied", "web.kube-system"),
        ("web.kube-system.svc", "NameDenied", "web.kube-system.svc"),
        ("web.kube-system.svc.cluster.local", "NameDenied", "web.kube-system.svc.cluster.local"),
        ("web.x-{}.svc", "NameDenied", "web.x-{}.svc"),
        ("web.{}x.svc", "NameDenied", "web.{}x.svc"),
        ("web.{}.svc.kube-system.svc", "NameDenied", "web.{}.svc.kube-system.svc"),
        ("WEB.Kube-System.SVC", "NameDenied", "web.kube-system.svc"),
        ("*.kube-system.svc", "NameDenied", "*.kube-system.svc"),
        ("*.svc.cluster.local", "NameDenied", "*.svc.cluster.local"),
        ("web.{}.svc,web.kube-system.svc", "NameDenied", "web.kube-system.svc"),
        ("web.{}.svc.", "InvalidSpec", "web.{}.svc."),
        ("www.exämple.com", "InvalidSpec", "www.exämple.com"),
        ("www.*.example.com", "InvalidSpec", "www.*.example.com"),
        ("www*.example.com", "InvalidSpec", "www*.example.com"),
    ],
)
def test_a_look_alike_is_refused_by_name_at_no_cost(
    site: Site, namespace: str, authority: Authority, names: str, reason: str, told: str
) -> None:
    own = authority({"namespaces": ["*"], "names": ["*.example.com", "**.svc", "*.*.svc", "**.cluster.local"]})
    calls = site.calls()
    site.order(namespace, authority=own, names=names.format(namespace))

    message = site.await_condition(namespace, status="False", reason=reason)

    assert repr(told.format(namespace)) in message
    assert site.calls() == calls
    assert "data" not in site.secret(namespace)


def test_a_namespace_has_the_names_of_its_own_services_without_a_rule(
    site: Site, namespace: str, authority: Authority
) -> None:
    own = authority()
    names = [f"Web.{namespace}", f"web.{namespace}.svc", f"WEB.{namespace}.svc.cluster.local", f"*.web.{namespace}.svc"]
    site.order(namespace, authority=own, names=",".join(names))

    chain = site.await_ready(namespace)

    assert [str(name) for name in chain.leaf.names] == [name.lower() for name in names]


def test_more_than_the_longest_duration_is_denied_with_both(site: Site, namespace: str, authority: Authority) -> None:
    own = authority({**EXAMPLES, "maxDuration": "24h"})
    calls = site.calls()
    site.order(namespace, authority=own, names="www.example.com", duration="48h")

    message = site.await_condition(namespace, status="False", reason="NameDenied")
    asked = site.calls()
    site.plane.annotate("secrets", namespace, "web-tls", duration="24h")
    chain = site.await_ready(namespace)

    assert "'www.example.com' is allowed for 24h at most and 48h is asked for" in message
    assert asked == calls
    assert chain.leaf.lifetime == timedelta(hours=24)


def test_where_no_duration_is_asked_for_the_longest_holds_at_each_renewal(
    site: Site, namespace: str, authority: Authority
) -> None:
    """The CA's default is a day."""
    own = authority({**EXAMPLES, "maxDuration": "12h"})
    site.order(namespace, authority=own, names="www.example.com")
    first = site.await_ready(namespace)

    set_policy(site, own, {**EXAMPLES, "maxDuration": "1h"})
    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    second = site.await_new(namespace, after=first)

    assert first.leaf.lifetime == timedelta(hours=12)
    assert second.leaf.lifetime == timedelta(hours=1)
    assert site.status(namespace)["lastRenewal"]["route"] == "Sign"


def test_a_rule_that_cannot_be_read_allows_nobody_anything(site: Site, namespace: str, authority: Authority) -> None:
    own = authority(EXAMPLES)
    site.order(namespace, authority=own, names="www.example.com")
    first = site.await_ready(namespace)
    calls = site.calls()

    set_policy(site, own, EXAMPLES, {"namespaces": ["*"], "names": ["*"]}, ready="False")
    site.plane.annotate("certrenewals", namespace, "web-tls", renew_now="1")
    message = site.await_condition(namespace, status="True", reason="AuthorityNotReady")
    asked = site.calls()
    set_policy(site, own, EXAMPLES)
    site.await_new(namespace, after=first)

    assert "spec.policy[1]" in message
    assert asked == calls


BAD: Mapping[str, tuple[Mapping[str, str], str]] = {
    "duration": ({"duration": "1d"}, "InvalidSpec"),
    "key": ({"key": "RSA-1024"}, "InvalidSpec"),
    "name": ({"names": "a..b"}, "InvalidSpec"),
    "foreign": ({"names": "web.kube-system.svc"}, "NameDenied"),
    "nowhere": ({"authority": "nowhere"}, "AuthorityNotFound"),
}


def test_bad_objects_delay_no_good_one(site: Site, namespace: str) -> None:
    bad = {f"{kind}-{number}": case for number in range(4) for kind, case in BAD.items()}
    calls = site.calls()
    for name, (wish, _) in bad.items():
        site.order(namespace, name, **wish)

    site.order(namespace)
    site.await_ready(namespace)

    for name, (_, reason) in bad.items():
        site.await_condition(namespace, name, status="False", reason=reason)
    assert site.calls() == calls + 1


REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "an empty name": ({"names": [""]}, "spec.names[0]"),
    "a name too long": ({"names": ["a" * 1025]}, "spec.names[0]"),
    "too many names": ({"names": [f"{number}.example.com" for number in range(101)]}, "spec.names"),
    "names in one text": ({"names": "a.example.com,b.example.com"}, "spec.names"),
    "a duration of centuries": ({"duration": "99999999h"}, "spec.duration"),
    "a negative duration": ({"duration": "-1h"}, "spec.duration"),
    "renewBefore in days": ({"renewBefore": "1d"}, "spec.renewBefore"),
    "renewBefore as long as duration": ({"duration": "60m", "renewBefore": "1h"}, "spec.renewBefore"),
    "an authority that is no name": ({"authority": "Default"}, "spec.authority"),
    "a data key with a slash": ({"dataKeys": {"crt": "a/b"}}, "spec.dataKeys.crt"),
    "a restart of all and one": ({"restart": "Auto,Deployment/web"}, "spec.restart"),
}


@pytest.mark.parametrize(("spec", "field"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_schema_can_refuse_never_reaches_the_operator(
    site: Site, namespace: str, spec: Mapping[str, Any], field: str
) -> None:
    with pytest.raises(ApiError) as refusal:
        site.plane.create(manifests.cert_renewal("bad", namespace, spec))

    assert refusal.value.status == 422
    assert field in refusal.value.body
