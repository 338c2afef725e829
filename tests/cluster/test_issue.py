"""A certificate is what was asked for, its token is used once, and a wrong answer never reaches a Secret."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from certrenewal.domain.certificate import PrivateKey, dump_certificates, dump_key, load_certificates, load_key
from certrenewal.domain.keys import KeyAlgorithm
from certrenewal.domain.status import moment_of
from tests.cluster.site import PASSWORD_SECRET, SYSTEM, Site
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.faults import HttpProxy, ca_proxy
from tests.testbed.processes import until
from tests.testbed.stepca import StepCA


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
    for number in range(3):
        site.plane.merge_patch("secrets", namespace, "web-tls", {"data": {"other": manifests.encoded(str(number))}})
    site.order(namespace, "good", authority="strict", duration="30m")
    site.await_ready(namespace, "good")

    assert "48h" in message
    assert failure["count"] == 1
    since, attempt = moment_of(failure["since"]), moment_of(failure["nextAttempt"])
    assert since is not None
    assert attempt == since + timedelta(hours=1)
    assert strict.count("/sign", 403) == 1  # a no is a no: nobody asks again as long as nothing changes

    strict.edit_provisioner("admin", lambda entry: entry.update(claims={"maxTLSCertDuration": "72h"}))
    site.plane.merge_patch("certauthorities", "", "strict", {"spec": {"limits": {"concurrency": 4}}})
    site.await_ready(namespace)
    site.plane.delete("certauthorities", "", "strict")


def test_a_refused_wish_may_be_changed_at_once(site: Site, namespace: str, make_ca: MakeCA) -> None:
    strict = make_ca("Stricter", claims={"maxTLSCertDuration": "1h", "defaultTLSCertDuration": "10m"})
    site.plane.apply(manifests.secret("stricter", SYSTEM, {"password": strict.password}))
    site.plane.create(manifests.cert_authority("stricter", strict, password=(SYSTEM, "stricter")))
    site.order(namespace, authority="stricter", duration="48h")
    site.await_condition(namespace, status="False", reason="AuthorityRefused")

    site.plane.annotate("secrets", namespace, "web-tls", duration="1h")

    site.await_ready(namespace)
    site.plane.delete("certauthorities", "", "stricter")


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


@pytest.fixture
def liar(site: Site, tmp_path: Path) -> Iterator[HttpProxy]:
    """A proxy before the CA that can lie, and the CertAuthority ``liar`` that leads to it."""
    with ca_proxy(site.ca, tmp_path) as proxy:
        site.plane.create(manifests.cert_authority("liar", site.ca, password=(SYSTEM, PASSWORD_SECRET), url=proxy.url))
        yield proxy
        site.plane.delete("certauthorities", "", "liar")


@pytest.mark.parametrize(
    ("hours", "name", "issuer", "words"),
    [
        ((-1, 1), "web-tls.{}.svc", "own", ""),
        ((-1, 1), "other.example.com", "own", "other.example.com"),
        ((-2, -1), "web-tls.{}.svc", "own", "ended at"),
        ((1, 2), "web-tls.{}.svc", "own", "begins at"),
        ((-1, 1), "web-tls.{}.svc", "foreign", "trusted root"),
    ],
    ids=["the truth", "other names", "ended", "not begun", "another root"],
)
def test_each_fault_of_an_answer_keeps_it_from_the_secret(
    site: Site,
    namespace: str,
    liar: HttpProxy,
    make_ca: MakeCA,
    hours: tuple[int, int],
    name: str,
    issuer: str,
    words: str,
) -> None:
    """The answer certifies the right key: only what the case names is wrong with it."""
    site.order(namespace, authority="liar")
    site.await_ready(namespace)
    before = site.secret(namespace)["data"]
    key = load_key(manifests.decoded(site.secret(namespace), "tls.key"))
    ca = site.ca if issuer == "own" else make_ca("Foreign")
    chain = forged(ca, key, name.format(namespace), hours)

    liar.answer("POST", "/renew", 201, json.dumps({"certChain": chain}), times=None)
    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    message = site.await_condition(namespace, status="True", reason="BadCertificate" if words else "Renewed")

    assert words in message
    assert (site.secret(namespace)["data"] == before) is bool(words)


def forged(ca: StepCA, key: PrivateKey, name: str, hours: tuple[int, int]) -> Sequence[str]:
    """A chain as ``ca`` would answer it, for this key and DNS name, valid between these hours from now."""
    secrets, certificates = ca.folder / "secrets", ca.folder / "certs"
    signer = serialization.load_pem_private_key((secrets / "intermediate_ca_key").read_bytes(), ca.password.encode())
    (issuer,) = load_certificates((certificates / "intermediate_ca.crt").read_bytes())
    assert isinstance(signer, EllipticCurvePrivateKey)
    now = datetime.now(UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(hours=hours[0]))
        .not_valid_after(now + timedelta(hours=hours[1]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .sign(signer, hashes.SHA256())
    )
    return [dump_certificates([certificate]).decode() for certificate in (leaf, issuer)]
