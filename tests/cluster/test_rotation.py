"""Roots, intermediates and provisioner keys are replaced under the operator, and no certificate is lost by it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from certrenewal.domain.certificate import Chain, fingerprint, load_certificates
from tests.cluster.site import OPEN_POLICY, SYSTEM, Site, condition_of
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.processes import until
from tests.testbed.stepca import StepCA


@dataclass(frozen=True, slots=True)
class Turning:
    """A CA of the test's own, and the CertAuthority of the same name that leads to it."""

    site: Site
    ca: StepCA
    name: str

    def look(self) -> None:
        """Have the operator look at the CA now, as it does every five minutes."""
        value = secrets.token_hex(4)
        rule = {"namespaces": [value], "names": [f"{value}.example.net"]}
        self.patch({"policy": [*OPEN_POLICY, rule]})

    def patch(self, spec: dict[str, Any]) -> None:
        """Change the CertAuthority."""
        self.site.plane.merge_patch("certauthorities", "", self.name, {"spec": spec})

    def ready(self) -> tuple[str, str]:
        """Status and reason of its condition."""
        status = self.site.plane.get("certauthorities", "", self.name).get("status") or {}
        found = condition_of(status, "Ready")
        return found.get("status", ""), found.get("reason", "")

    def roots(self) -> set[str]:
        """The fingerprints of the roots that status shows."""
        status = self.site.plane.get("certauthorities", "", self.name).get("status") or {}
        return {root["fingerprint"] for root in status.get("roots") or ()}

    def renewed(self, namespace: str, value: str) -> Chain:
        """Ask for a renewal, and wait for it."""
        before = self.site.chain(namespace)
        self.site.plane.annotate("secrets", namespace, "web-tls", renew_now=value)
        return self.site.await_new(namespace, after=before)


@pytest.fixture
def turning(site: Site, make_ca: MakeCA) -> Iterator[Turning]:
    """A CA whose keys may change."""
    name = f"turning-{secrets.token_hex(3)}"
    ca = make_ca("Turning", backdate="0s")
    site.plane.create(manifests.secret(name, SYSTEM, {"password": ca.password}))
    site.plane.create(manifests.cert_authority(name, ca, password=(SYSTEM, name), policy=OPEN_POLICY))
    yield Turning(site, ca, name)
    site.plane.delete("certauthorities", "", name)


def bundle(site: Site, namespace: str) -> set[str]:
    """The fingerprints of the roots beside the certificate."""
    found = load_certificates(manifests.decoded(site.secret(namespace), "ca.crt"))
    return {fingerprint(root) for root in found}


def root_of(file: Path) -> str:
    """The fingerprint of the certificate in a file."""
    return fingerprint(load_certificates(file.read_bytes())[0])


def test_a_root_is_followed_from_its_announcement_to_the_last_certificate(
    site: Site, namespace: str, turning: Turning
) -> None:
    """Announced beside the old one, then signing, then alone; the pin moves before the old root leaves the CA."""
    ca, old, new = turning.ca, turning.ca.first_issuer, turning.ca.make_issuer("New")
    before, after = root_of(old.root_file), root_of(new.root_file)
    site.order(namespace, authority=turning.name)
    first = site.await_ready(namespace)
    assert bundle(site, namespace) == {before}

    ca.issue_by(old, roots=[old], federated=[new])
    turning.look()
    until(lambda: bundle(site, namespace) == {before, after}, 20, "both roots beside the certificate")
    assert site.chain(namespace).leaf.fingerprint == first.leaf.fingerprint

    ca.issue_by(new, roots=[new], federated=[old])
    turning.look()
    site.operator.restart()
    until(lambda: turning.ready() == ("True", "Ready"), 20, "the CA is trusted by its new root, after a restart too")
    assert site.chain(namespace).leaf.fingerprint == first.leaf.fingerprint

    turning.patch({"fingerprint": after})
    ca.issue_by(new, roots=[new])
    turning.look()
    site.operator.restart()
    until(lambda: turning.ready() == ("True", "Ready"), 20, "ready under the new pin")
    turning.look()
    site.order(namespace, "second", authority=turning.name)
    site.await_ready(namespace, "second")
    assert bundle(site, namespace) == {before, after}  # the first certificate still leads to the old root

    second = turning.renewed(namespace, "1")
    turning.look()

    until(lambda: bundle(site, namespace) == {after}, 30, "the old root leaves with the last certificate that needs it")
    assert turning.roots() == {after}
    assert second.certificates[-1] == load_certificates(new.intermediate_file.read_bytes())[0]
    assert site.status(namespace)["lastRenewal"]["route"] == "Sign"
    assert [rung["route"] for rung in site.status(namespace)["lastRenewal"]["refused"]] == ["RenewToken", "RenewMTLS"]


def test_a_new_intermediate_comes_with_the_renewal(site: Site, namespace: str, turning: Turning) -> None:
    site.order(namespace, authority=turning.name)
    first = site.await_ready(namespace)
    old = turning.ca.first_issuer
    new = turning.ca.make_issuer("Next", root=old)

    turning.ca.issue_by(new, roots=[old])
    turning.look()
    site.order(namespace, "second", authority=turning.name)
    site.await_ready(namespace, "second")
    kept = site.chain(namespace)
    second = turning.renewed(namespace, "1")

    assert kept.leaf.fingerprint == first.leaf.fingerprint
    assert second.certificates[1] == load_certificates(new.intermediate_file.read_bytes())[0]
    assert second.certificates[1] != first.certificates[1]


def test_a_pin_that_the_ca_no_longer_has_is_an_error_and_no_new_pin(
    site: Site, namespace: str, turning: Turning
) -> None:
    site.order(namespace, authority=turning.name)
    first = site.await_ready(namespace)
    data = site.secret(namespace)["data"]
    new = turning.ca.make_issuer("Usurper")

    turning.ca.issue_by(new, roots=[new])
    turning.look()
    until(lambda: turning.ready()[0] == "False", 20, "the CA is not trusted any more")
    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    site.await_condition(namespace, status="True", reason="AuthorityNotReady")

    assert turning.ready()[1] == "FingerprintMismatch"
    assert turning.roots() == {turning.ca.fingerprint}
    assert site.secret(namespace)["data"] == data
    assert site.chain(namespace).leaf.fingerprint == first.leaf.fingerprint


def test_another_pin_is_another_ca_and_every_certificate_is_signed_by_it(
    site: Site, namespace: str, turning: Turning, make_ca: MakeCA
) -> None:
    site.order(namespace, authority=turning.name)
    first = site.await_ready(namespace)
    other = make_ca("Successor", backdate="0s")

    site.plane.merge_patch("secrets", SYSTEM, turning.name, {"data": {"password": manifests.encoded(other.password)}})
    turning.patch({"url": other.url, "fingerprint": other.fingerprint})
    second = site.await_new(namespace, after=first)

    assert bundle(site, namespace) == {other.fingerprint}
    assert second.leaf.issuer != first.leaf.issuer
    assert site.status(namespace)["lastRenewal"] == {
        **site.status(namespace)["lastRenewal"],
        "route": "Sign",
        "reason": "IssuerChanged",
    }


@pytest.mark.parametrize("first", ["the CA", "the Secret"])
def test_a_provisioner_with_a_new_key_and_password_is_picked_up(
    site: Site, namespace: str, turning: Turning, first: str
) -> None:
    """Whichever of the two is changed first, and without a restart of the operator."""
    site.order(namespace, authority=turning.name)
    site.await_ready(namespace)
    password = secrets.token_hex(12)

    def change_ca() -> None:
        turning.ca.step("ca", "provisioner", "remove", "admin", f"--ca-config={turning.ca.config_file}")
        turning.ca.add_provisioner("admin", password=password)

    def change_secret() -> None:
        data = {"password": manifests.encoded(password)}
        site.plane.merge_patch("secrets", SYSTEM, turning.name, {"data": data})

    steps = [change_ca, change_secret] if first == "the CA" else [change_secret, change_ca]
    steps[0]()
    site.order(namespace, "second", authority=turning.name)
    until(lambda: turning.ready()[1] == "PasswordWrong", 20, "the password and the key do not fit")
    steps[1]()

    until(lambda: turning.ready() == ("True", "Ready"), 20, "they fit again")
    site.await_ready(namespace, "second")
    site.order(namespace, "third", authority=turning.name)
    site.await_ready(namespace, "third")
