"""An authority is trusted by its pinned root alone, and its status says exactly what keeps it from being used."""

from __future__ import annotations

import email.utils
import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from certrenewal.domain.certificate import load_certificates
from tests.cluster.site import PASSWORD_SECRET, SYSTEM, Site, condition_of
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.api import Manifest
from tests.testbed.faults import ca_proxy
from tests.testbed.processes import until

PASSWORD = (SYSTEM, PASSWORD_SECRET)


@pytest.fixture
def authority(site: Site) -> Iterator[str]:
    """A name for a CertAuthority of the test's own, removed afterwards."""
    name = f"own-{secrets.token_hex(3)}"
    yield name
    if site.plane.find("certauthorities", "", name):
        site.plane.delete("certauthorities", "", name)


def ready(site: Site, name: str) -> Manifest:
    """The authority's Ready condition."""
    return condition_of(site.plane.get("certauthorities", "", name).get("status") or {}, "Ready")


def refused(site: Site, name: str, reason: str) -> str:
    """Wait until the authority is refused for that reason; the message."""
    until(lambda: ready(site, name).get("reason") == reason, 20, f"{reason} on {name}")
    found = ready(site, name)
    assert found["status"] == "False"
    return str(found["message"])


def test_a_reachable_authority_is_ready_and_tells_what_it_trusts(site: Site) -> None:
    until(lambda: ready(site, "default").get("status") == "True", 20, "Ready")
    status = site.plane.get("certauthorities", "", "default")["status"]

    assert [root["fingerprint"] for root in status["roots"]] == [site.ca.fingerprint]
    assert status["provisioner"]["name"] == site.ca.provisioner
    assert status["lastContact"].endswith("Z")
    assert condition_of(status, "ClockInSync")["status"] == "True"


def test_ca_crt_holds_the_bundle_that_the_ca_names(site: Site, namespace: str, make_ca: MakeCA) -> None:
    other = make_ca("Second")

    def two_roots(config: dict[str, Any]) -> None:
        config["root"] = [config["root"], str(other.root_file)]

    own = make_ca("Rotating", backdate="0s")
    own.edit(two_roots)
    site.plane.apply(manifests.secret("rotating", SYSTEM, {"password": own.password}))
    site.plane.create(manifests.cert_authority("rotating", own, password=(SYSTEM, "rotating")))
    site.order(namespace, authority="rotating")
    site.await_ready(namespace)
    bundle = manifests.decoded(site.secret(namespace), "ca.crt")
    site.plane.delete("certauthorities", "", "rotating")

    expected = {*load_certificates(own.root_pem.encode()), *load_certificates(other.root_pem.encode())}
    assert set(load_certificates(bundle)) == expected


def test_an_unreachable_authority_says_so_and_recovers(site: Site, authority: str, make_ca: MakeCA) -> None:
    ca = make_ca("Asleep")
    ca.stop()
    site.plane.create(manifests.cert_authority(authority, ca, password=None))

    message = refused(site, authority, "AuthorityUnreachable")
    ca.start()

    assert ca.url in message
    until(lambda: ready(site, authority)["status"] == "True", 30, "Ready again")


def test_a_foreign_ca_at_the_url_is_asked_for_its_root_alone(site: Site, authority: str, make_ca: MakeCA) -> None:
    foreign = make_ca("Impostor")
    wrong = manifests.cert_authority(authority, foreign, password=PASSWORD, fingerprint=site.ca.fingerprint)
    site.plane.create(wrong)

    message = refused(site, authority, "FingerprintMismatch")

    assert site.ca.fingerprint in message
    assert "step certificate fingerprint" in message
    assert {call["path"] for call in foreign.calls()} == {f"/root/{site.ca.fingerprint}"}


def test_another_root_under_the_fingerprint_is_not_believed(
    site: Site, authority: str, make_ca: MakeCA, tmp_path: Path
) -> None:
    foreign = make_ca("Impostor")
    with ca_proxy(foreign, tmp_path) as proxy:
        proxy.answer("GET", "/root/", 200, json.dumps({"ca": foreign.root_pem}), times=None)
        wrong = manifests.cert_authority(
            authority, foreign, password=PASSWORD, url=proxy.url, fingerprint=site.ca.fingerprint
        )
        site.plane.create(wrong)

        message = refused(site, authority, "FingerprintMismatch")

        assert site.ca.fingerprint in message
        assert {seen.path for seen in proxy.requests} == {f"/root/{site.ca.fingerprint}"}


def test_a_bundle_that_does_not_lead_to_the_server_is_refused(site: Site, authority: str, make_ca: MakeCA) -> None:
    foreign = make_ca("Impostor")
    wrong = manifests.cert_authority(authority, foreign, password=PASSWORD)
    wrong["spec"].pop("fingerprint")
    wrong["spec"]["caBundle"] = site.ca.root_pem
    site.plane.create(wrong)

    refused(site, authority, "CertificateNotTrusted")

    assert foreign.calls() == []


def test_a_host_that_is_not_in_the_certificate_is_named(site: Site, authority: str, make_ca: MakeCA) -> None:
    ca = make_ca("Elsewhere", dns=("127.0.0.1",))
    url = ca.url.replace("127.0.0.1", "localhost")
    site.plane.create(manifests.cert_authority(authority, ca, password=None, url=url))

    message = refused(site, authority, "HostNotInCertificate")

    assert "localhost" in message
    assert "dnsNames" in message


def test_an_unknown_provisioner_is_named_with_those_there_are(site: Site, authority: str) -> None:
    wrong = manifests.cert_authority(authority, site.ca, password=PASSWORD)
    wrong["spec"]["provisioner"]["name"] = "nobody"
    site.plane.create(wrong)

    message = refused(site, authority, "ProvisionerNotFound")

    assert "'nobody'" in message
    assert site.ca.provisioner in message


def test_a_wrong_password_is_told_and_never_shown(site: Site, namespace: str, authority: str) -> None:
    wrong = secrets.token_hex(12)
    site.plane.create(manifests.secret("pw", namespace, {"password": wrong}))
    site.plane.create(manifests.cert_authority(authority, site.ca, password=(namespace, "pw")))

    message = refused(site, authority, "PasswordWrong")

    assert f"{namespace}/pw" in message
    assert wrong not in message
    assert wrong not in site.operator.log_text()

    site.plane.apply(manifests.secret("pw", namespace, {"password": site.ca.password + "\n"}))
    until(lambda: ready(site, authority)["status"] == "True", 30, "Ready once the password is right")


def test_a_missing_password_secret_is_named_and_picked_up(site: Site, namespace: str, authority: str) -> None:
    site.plane.create(manifests.cert_authority(authority, site.ca, password=(namespace, "absent")))

    message = refused(site, authority, "PasswordSecretMissing")
    site.plane.create(manifests.secret("absent", namespace, {"password": site.ca.password}))

    assert f"{namespace}/absent" in message
    until(lambda: ready(site, authority)["status"] == "True", 30, "Ready once the Secret exists")


def test_the_provisioner_key_is_opened_once_for_many_certificates(site: Site, namespace: str) -> None:
    site.order(namespace, "first")
    site.await_ready(namespace, "first")
    before = site.ca.count("/provisioners")

    for number in range(3):
        site.order(namespace, f"next-{number}")
        site.await_ready(namespace, f"next-{number}")

    assert site.ca.count("/provisioners") == before


def test_a_clock_that_differs_is_told(site: Site, authority: str, tmp_path: Path) -> None:
    with ca_proxy(site.ca, tmp_path) as proxy:
        late = email.utils.format_datetime(datetime.now(UTC) - timedelta(minutes=10), usegmt=True)
        proxy.answer("GET", "", 201, json.dumps({"ca": site.ca.root_pem, "crts": [site.ca.root_pem]}),
                     headers={"Date": late}, times=None)  # fmt: skip
        site.plane.create(manifests.cert_authority(authority, site.ca, password=None, url=proxy.url))

        def skewed() -> Manifest:
            return condition_of(site.plane.get("certauthorities", "", authority).get("status") or {}, "ClockInSync")

        until(lambda: skewed().get("status") == "False", 20, "ClockInSync is False")

        assert skewed()["reason"] == "ClockSkew"
        assert "10m behind" in skewed()["message"]
