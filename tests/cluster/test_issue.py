"""A certificate is what was asked for, its token is used once, and a wrong answer never reaches a Secret."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from certrenewal.domain.certificate import dump_key, load_key
from certrenewal.domain.keys import KeyAlgorithm
from tests.cluster.site import PASSWORD_SECRET, SYSTEM, Site
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.faults import ca_proxy
from tests.testbed.processes import until


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_every_kind_of_key_is_made(site: Site, namespace: str, algorithm: KeyAlgorithm) -> None:
    site.order(namespace, key=algorithm.value)

    chain = site.await_ready(namespace)
    key = manifests.decoded(site.secret(namespace), "tls.key")

    assert chain.leaf.algorithm is algorithm
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert key == dump_key(load_key(key))


def test_names_of_every_kind_are_in_the_certificate(site: Site, namespace: str) -> None:
    names = "www.example.com,10.1.2.3,ops@example.com,spiffe://example.com/web,*.apps.example.com"
    site.plane.merge_patch("certauthorities", "", "default", {"spec": {"policy": [
        {"namespaces": ["*"], "names": ["*.example.com", "**.apps.example.com", "10.0.0.0/8", "*@example.com",
                                        "spiffe://example.com/*"]}]}})  # fmt: skip
    site.order(namespace, names=names)

    chain = site.await_ready(namespace)

    assert {str(name) for name in chain.leaf.names} == set(names.split(","))
    assert chain.leaf.subject == "www.example.com"


def test_the_duration_asked_for_is_the_life_of_the_certificate(site: Site, namespace: str) -> None:
    site.order(namespace, duration="90m")

    assert site.await_ready(namespace).leaf.lifetime.total_seconds() == 90 * 60


def test_each_token_is_its_own_short_lived_and_bound_to_its_request(site: Site, namespace: str) -> None:
    seen = len(site.ca.calls())
    for name in ("one", "two"):
        site.order(namespace, name)
    for name in ("one", "two"):
        site.await_ready(namespace, name)

    claims = [claims_of(call["ott"]) for call in site.ca.calls()[seen:] if call.get("ott")]

    assert len(claims) == 2
    assert len({claim["jti"] for claim in claims}) == 2
    for claim in claims:
        assert len(bytes.fromhex(claim["jti"])) * 8 == 256
        assert claim["exp"] - claim["iat"] == 300
        assert claim["nbf"] == claim["iat"]
        assert claim["sha"] == site.ca.fingerprint
        assert len(base64.urlsafe_b64decode(claim["cnf"]["x5rt#S256"] + "=")) == 32
        assert claim["aud"] == f"{site.ca.url}/1.0/sign"


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a compact JWS, unverified."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def test_a_name_without_a_rule_is_denied_by_name_at_no_cost(site: Site, namespace: str) -> None:
    before = site.calls()
    site.order(namespace, names=f"web.{namespace}.svc,api.kube-system.svc")

    message = site.await_condition(namespace, status="False", reason="NameDenied")

    assert "'api.kube-system.svc'" in message
    assert "spec.policy of CertAuthority default" in message
    assert site.calls() == before
    assert "tls.crt" not in site.secret(namespace).get("data", {})


def test_a_denial_lifts_by_itself_when_the_policy_allows(site: Site, namespace: str) -> None:
    policy = site.plane.get("certauthorities", "", "default")["spec"]["policy"]
    site.order(namespace, names="shop.example.org")
    site.await_condition(namespace, status="False", reason="NameDenied")

    more = [*policy, {"namespaces": [namespace], "names": ["*.example.org"]}]
    site.plane.merge_patch("certauthorities", "", "default", {"spec": {"policy": more}})

    site.await_ready(namespace)


def test_a_refusal_is_told_in_the_words_of_the_ca(site: Site, namespace: str, make_ca: MakeCA) -> None:
    strict = make_ca("Strict", claims={"maxTLSCertDuration": "1h", "defaultTLSCertDuration": "10m"})
    site.plane.apply(manifests.secret("strict", SYSTEM, {"password": strict.password}))
    site.plane.create(manifests.cert_authority("strict", strict, password=(SYSTEM, "strict")))
    site.order(namespace, authority="strict", duration="48h")

    message = site.await_condition(namespace, status="False", reason="AuthorityRefused")
    failure = site.status(namespace)["failure"]
    site.plane.delete("certauthorities", "", "strict")

    assert "48h" in message
    assert failure["count"] >= 1
    assert failure["nextAttempt"] > failure["since"]


def test_a_wrong_answer_never_reaches_the_secret(
    site: Site, namespace: str, tmp_path: Path, foreign_pair: tuple[str, str]
) -> None:
    with ca_proxy(site.ca, tmp_path) as proxy:
        own = manifests.cert_authority("lying", site.ca, password=(SYSTEM, PASSWORD_SECRET), url=proxy.url)
        site.plane.create(own)
        wrong_key, _ = site.ca.certificate(f"web-tls.{namespace}.svc")
        lie = proxy.answer("POST", "/sign", 201, json.dumps({"certChain": [wrong_key]}), times=None)
        site.order(namespace, authority="lying")

        message = site.await_condition(namespace, status="False", reason="BadCertificate")

        assert "another key" in message
        assert "tls.crt" not in site.secret(namespace).get("data", {})

        proxy.remove(lie)
        html = proxy.answer("POST", "/sign", 200, "<html>Sign in</html>", headers={"Content-Type": "text/html"},
                            times=None)  # fmt: skip
        until(lambda: html.hits > 0, 20, "the next attempt")
        until(lambda: "no JSON" in site.message(namespace), 20, "HTML told")
        proxy.remove(html)

        site.await_ready(namespace)
        site.plane.delete("certauthorities", "", "lying")
