"""A renewal comes in time, by the cheapest route that works, and costs the API server next to nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from certrenewal.domain.status import moment_of
from tests.cluster.site import PASSWORD_SECRET, SYSTEM, Site
from tests.testbed import manifests
from tests.testbed.faults import ca_proxy
from tests.testbed.processes import until


def last_route(site: Site, namespace: str, name: str = "web-tls") -> tuple[str, str]:
    """Route and reason of the last renewal."""
    last = site.status(namespace, name)["lastRenewal"]
    return last["route"], last["reason"]


def test_a_short_certificate_is_renewed_before_two_thirds_of_its_life(site: Site, namespace: str) -> None:
    site.order(namespace, duration="60s")
    first = site.await_ready(namespace)
    planned = moment_of(site.status(namespace)["renewalTime"])

    second = site.await_new(namespace, after=first, patience=60)

    assert planned is not None
    assert planned < first.leaf.not_before + first.leaf.lifetime * 2 / 3
    assert second.leaf.not_before >= planned
    assert second.leaf.not_before < first.leaf.not_after
    assert last_route(site, namespace) == ("RenewToken", "RenewalDue")
    assert second.leaf.key_fingerprint == first.leaf.key_fingerprint


def test_a_restarted_operator_still_renews_in_time(site: Site, namespace: str) -> None:
    site.order(namespace, duration="30s")
    first = site.await_ready(namespace)

    site.operator.restart()
    second = site.await_new(namespace, after=first, patience=30)

    assert second.leaf.not_before < first.leaf.not_before + first.leaf.lifetime * 2 / 3 + timedelta(seconds=2)
    assert last_route(site, namespace) == ("RenewMTLS", "RenewalDue")


def test_renew_before_is_kept(site: Site, namespace: str) -> None:
    site.order(namespace, duration="24h", renew_before="4h")
    leaf = site.await_ready(namespace).leaf
    planned = moment_of(site.status(namespace)["renewalTime"])

    assert planned is not None
    assert timedelta(hours=4) <= leaf.not_after - planned <= timedelta(hours=4.2, seconds=1)


def test_a_renew_before_that_does_not_fit_is_warned_of(site: Site, namespace: str) -> None:
    site.order(namespace, duration="1h", renew_before="59m59s")
    site.order(namespace, "long", renew_before="2000h")

    site.await_ready(namespace, "long")

    until(lambda: site.events(namespace, "long", "RenewBeforeIgnored"), 10, "a Warning")
    assert site.events(namespace, "long", "RenewBeforeIgnored")[0]["type"] == "Warning"


def test_renew_now_renews_once_for_each_new_value(site: Site, namespace: str) -> None:
    site.order(namespace)
    first = site.await_ready(namespace)

    site.plane.annotate("secrets", namespace, "web-tls", renew_now="one")
    second = site.await_new(namespace, after=first)
    calls = site.calls()
    site.plane.annotate("secrets", namespace, "web-tls", renew_now="one", restart="Never")
    until(lambda: site.status(namespace)["observedGeneration"] == 2, 10, "the old value is looked at again")
    repeated = site.calls() - calls
    site.plane.annotate("certrenewals", namespace, "web-tls", renew_now="two")
    site.await_new(namespace, after=second)

    assert repeated == 0
    assert last_route(site, namespace) == ("RenewToken", "RenewalRequested")
    assert site.calls() == calls + 1


def test_rotation_makes_a_new_key_by_signing(site: Site, namespace: str) -> None:
    site.order(namespace, key_rotation="Always")
    first = site.await_ready(namespace)

    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    second = site.await_new(namespace, after=first)

    assert last_route(site, namespace) == ("Sign", "RenewalRequested")
    assert second.leaf.key_fingerprint != first.leaf.key_fingerprint


def test_without_a_provisioner_rotation_goes_by_rekey_and_renewal_by_token(site: Site, namespace: str) -> None:
    site.plane.create(
        manifests.cert_authority(
            "renew-only", site.ca, password=None, policy=[{"namespaces": ["*"], "names": ["x.y.z"]}]
        )
    )
    crt, key = site.ca.certificate(f"web.{namespace}.svc")
    for name, rotation in (("turning", "Always"), ("steady", "Never")):
        wish = manifests.prefixed(renew="true", authority="renew-only", key_rotation=rotation)
        site.plane.create(manifests.tls_secret(name, namespace, crt, key, annotations=wish))
    first = site.await_ready(namespace, "turning")
    site.await_ready(namespace, "steady")

    for name in ("turning", "steady"):
        site.plane.annotate("secrets", namespace, name, renew_now="1")
    turned = site.await_new(namespace, "turning", after=first)
    steady = site.await_new(namespace, "steady", after=first)
    site.order(namespace, "empty", authority="renew-only")
    message = site.await_condition(namespace, "empty", status="False", reason="AuthorityNotReady")
    site.plane.delete("certauthorities", "", "renew-only")

    assert last_route(site, namespace, "turning")[0] == "Rekey"
    assert turned.leaf.key_fingerprint != first.leaf.key_fingerprint
    assert last_route(site, namespace, "steady")[0] == "RenewToken"
    assert steady.leaf.key_fingerprint == first.leaf.key_fingerprint
    assert "spec.provisioner" in message


def test_a_certificate_too_short_for_a_token_is_renewed_by_mtls(site: Site, namespace: str) -> None:
    site.order(namespace, duration="50s")
    first = site.await_ready(namespace)

    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    site.await_new(namespace, after=first)

    assert last_route(site, namespace)[0] == "RenewMTLS"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--kty=EC", "--curve=P-384"), id="P-384"),
        pytest.param(("--kty=EC", "--curve=P-521"), id="P-521, which nobody can ask for here"),
        pytest.param(("--kty=OKP", "--curve=Ed25519"), id="Ed25519"),
        pytest.param(("--kty=RSA", "--size=2048"), id="RSA"),
    ],
)
def test_a_certificate_made_by_hand_is_renewed_by_a_token_of_its_key(
    site: Site, namespace: str, options: tuple[str, ...]
) -> None:
    crt, key = site.ca.certificate(f"web.{namespace}.svc", (), "24h", *options)
    annotations = manifests.prefixed(renew="true")
    site.plane.create(manifests.tls_secret("web-tls", namespace, crt, key, annotations=annotations))
    first = site.await_ready(namespace)

    site.plane.annotate("secrets", namespace, "web-tls", renew_now="one")
    second = site.await_new(namespace, after=first)

    assert last_route(site, namespace) == ("RenewToken", "RenewalRequested")
    assert second.leaf.key_fingerprint == first.leaf.key_fingerprint


def test_a_refused_renewal_goes_one_rung_down(site: Site, namespace: str) -> None:
    site.order(namespace)
    first = site.await_ready(namespace)
    site.ca.revoke(first.leaf.serial)

    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    site.await_new(namespace, after=first)

    assert last_route(site, namespace)[0] == "Sign"
    refused = site.status(namespace)["lastRenewal"]["refused"]
    assert [rung["route"] for rung in refused] == ["RenewToken", "RenewMTLS"]
    assert all("401" in rung["message"] for rung in refused)


def test_a_changed_kind_of_key_or_duration_is_signed_anew(site: Site, namespace: str) -> None:
    site.order(namespace)
    first = site.await_ready(namespace)

    site.plane.annotate("secrets", namespace, "web-tls", key="EC-P384")
    second = site.await_new(namespace, after=first)
    changed_key = last_route(site, namespace)
    site.plane.annotate("secrets", namespace, "web-tls", duration="2h")
    third = site.await_new(namespace, after=second)

    assert changed_key == ("Sign", "KeyChanged")
    assert last_route(site, namespace) == ("Sign", "DurationChanged")
    assert third.leaf.lifetime == timedelta(hours=2)


def test_order_and_case_of_names_change_nothing(site: Site, namespace: str) -> None:
    site.order(namespace, names="a.example.com,b.example.com")
    first = site.await_ready(namespace)
    calls = site.calls()

    site.plane.annotate("secrets", namespace, "web-tls", names="B.example.com,A.example.com")
    until(
        lambda: (
            site.status(namespace)["observedGeneration"]
            == site.plane.get("certrenewals", namespace, "web-tls")["metadata"]["generation"]
            == 2
        ),
        10,
        "the change is seen",
    )

    assert site.calls() == calls
    assert site.chain(namespace).leaf.fingerprint == first.leaf.fingerprint


def test_a_due_certificate_is_renewed_once_an_unreachable_ca_is_back(site: Site, namespace: str) -> None:
    site.order(namespace, duration="2h")
    first = site.await_ready(namespace)
    pinned = site.ca.count(f"/root/{site.ca.fingerprint}")
    site.ca.stop()

    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    site.await_condition(namespace, status="True", reason="AuthorityUnreachable")
    failure = site.status(namespace)["failure"]
    site.ca.start()
    site.await_new(namespace, after=first, patience=40)

    assert failure["reason"] == "AuthorityUnreachable"
    assert "failure" not in site.status(namespace)
    assert site.condition(namespace) == ("True", "Renewed")
    # An outage is no reason to set the authority up again, and to open the provisioner's key.
    assert site.ca.count(f"/root/{site.ca.fingerprint}") == pinned


def test_a_ca_that_answers_500_is_not_hammered(site: Site, namespace: str, tmp_path: Path) -> None:
    with ca_proxy(site.ca, tmp_path) as proxy:
        own = manifests.cert_authority("failing", site.ca, password=(SYSTEM, PASSWORD_SECRET), url=proxy.url)
        site.plane.create(own)
        failing = proxy.answer("POST", "/sign", 500, '{"status":500,"message":"no database"}', times=None)
        site.order(namespace, authority="failing")
        message = site.await_condition(namespace, status="False", reason="AuthorityUnreachable")
        until(lambda: site.status(namespace)["failure"]["count"] == 2, 20, "the second attempt")
        for number in range(5):
            site.plane.annotate("secrets", namespace, "web-tls", **{f"x{number}": None})
            site.plane.merge_patch("secrets", namespace, "web-tls", {"data": {"other": manifests.encoded(str(number))}})
        hits, count = failing.hits, site.status(namespace)["failure"]["count"]
        proxy.remove(failing)
        site.await_ready(namespace)
        site.plane.delete("certauthorities", "", "failing")

    assert "no database" in message
    assert hits == count


def test_the_retry_after_of_the_ca_is_kept(site: Site, namespace: str, tmp_path: Path) -> None:
    with ca_proxy(site.ca, tmp_path) as proxy:
        own = manifests.cert_authority("busy", site.ca, password=(SYSTEM, PASSWORD_SECRET), url=proxy.url)
        site.plane.create(own)
        proxy.answer(
            "POST", "/sign", 429, '{"status":429,"message":"busy"}', headers={"Retry-After": "600"}, times=None
        )
        site.order(namespace, authority="busy")
        site.await_condition(namespace, status="False", reason="AuthorityUnreachable")
        failure = site.status(namespace)["failure"]
        site.plane.delete("certauthorities", "", "busy")

    since, attempt = moment_of(failure["since"]), moment_of(failure["nextAttempt"])
    assert since is not None
    assert attempt is not None
    assert attempt - since == timedelta(seconds=600)
