"""Every form of a certificate holds the same one, for openssl and for Java, and only what changed is written."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import load_der_x509_certificate

from certrenewal.domain.certificate import Chain, load_certificates
from tests.cluster.site import Site
from tests.testbed import manifests
from tests.testbed.processes import until

PASSWORD = "correct-horse"
ALL = "combined,der,pkcs12,truststore"
KEYS = {"tls-combined.pem", "tls.der", "key.der", "keystore.p12", "truststore.p12"}


def order(site: Site, namespace: str, **annotations: str) -> Chain:
    """A Secret with every form, and the Secret with the password; the chain."""
    site.plane.create(manifests.secret("pw", namespace, {"password": PASSWORD + "\n"}))
    site.order(namespace, **{"formats": ALL, "pkcs12_password_secret": "pw", **annotations})
    return site.await_ready(namespace)


def serials(site: Site, namespace: str, password: str = PASSWORD) -> set[int]:
    """The serial number in each form."""
    found = site.secret(namespace)
    store = pkcs12.load_pkcs12(manifests.decoded(found, "keystore.p12"), password.encode())
    assert store.cert is not None
    return {
        store.cert.certificate.serial_number,
        load_der_x509_certificate(manifests.decoded(found, "tls.der")).serial_number,
        *(load_certificates(manifests.decoded(found, key))[0].serial_number for key in ("tls.crt", "tls-combined.pem")),
    }


def data(site: Site, namespace: str) -> dict[str, str]:
    """The Secret's data as the API server shows it."""
    return dict(site.secret(namespace)["data"])


def test_every_form_holds_the_certificate_at_issue_and_at_renewal(site: Site, namespace: str) -> None:
    first = order(site, namespace)
    issued = serials(site, namespace)

    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    second = site.await_new(namespace, after=first)

    assert issued == {int(first.leaf.serial)}
    assert serials(site, namespace) == {int(second.leaf.serial)}
    assert site.condition(namespace, kind="FormatsWritten") == ("True", "FormatsWritten")
    assert set(site.status(namespace)["formats"]) == KEYS


@pytest.mark.parametrize("profile", ["Modern2023", "LegacyDES"])
def test_openssl_and_java_read_the_stores(site: Site, namespace: str, profile: str, tmp_path: Path) -> None:
    chain = order(site, namespace, pkcs12_profile=profile)
    for name in ("keystore.p12", "truststore.p12"):
        (tmp_path / name).write_bytes(manifests.decoded(site.secret(namespace), name))

    legacy = ["-legacy"] if profile == "LegacyDES" else []
    shown = run("openssl", "pkcs12", "-in", "keystore.p12", "-passin", f"pass:{PASSWORD}", "-nokeys", "-info", *legacy,
                folder=tmp_path)  # fmt: skip
    key_store = run("keytool", "-list", "-v", "-keystore", "keystore.p12", "-storepass", PASSWORD, folder=tmp_path)
    trust_store = run("keytool", "-list", "-keystore", "truststore.p12", "-storepass", PASSWORD, folder=tmp_path)

    assert ("AES-256-CBC" if profile == "Modern2023" else "TripleDES") in shown
    assert f"Serial number: {int(chain.leaf.serial):x}" in key_store
    assert "Entry type: PrivateKeyEntry" in key_store
    assert "Certificate chain length: 2" in key_store
    assert "trustedCertEntry" in trust_store
    root = site.ca.fingerprint.upper()
    assert ":".join(re.findall("..", root)) in trust_store


def run(program: str, *arguments: str, folder: Path) -> str:
    """What a program prints; the test is skipped where the machine does not have it."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([program, *arguments], cwd=folder, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_nothing_is_written_while_nothing_changed(site: Site, namespace: str) -> None:
    """Key stores are encrypted with random salts: one that is written again is another."""
    order(site, namespace)
    before = data(site, namespace)

    site.operator.restart()
    site.plane.annotate("secrets", namespace, "web-tls", restart="Never")
    until(lambda: site.status(namespace)["observedGeneration"] == 2, 20, "another look")

    assert data(site, namespace) == before
    assert site.events(namespace, reason="Repaired") == []


def test_another_password_changes_the_stores_alone_and_asks_no_ca(site: Site, namespace: str) -> None:
    chain = order(site, namespace)
    before, calls = data(site, namespace), site.calls()

    site.plane.merge_patch("secrets", namespace, "pw", {"data": {"password": manifests.encoded("battery")}})
    until(lambda: data(site, namespace)["keystore.p12"] != before["keystore.p12"], 20, "a store with the new password")
    after = data(site, namespace)

    assert {key for key in before if after[key] != before[key]} == {"keystore.p12", "truststore.p12"}
    assert serials(site, namespace, "battery") == {int(chain.leaf.serial)}
    assert site.calls() == calls


def test_a_form_no_longer_asked_for_is_removed_and_nothing_else(site: Site, namespace: str) -> None:
    order(site, namespace)
    site.plane.merge_patch("secrets", namespace, "web-tls", {"data": {"mine": manifests.encoded("1")}})
    before, calls = data(site, namespace), site.calls()

    site.plane.annotate("secrets", namespace, "web-tls", formats="der")
    until(lambda: "keystore.p12" not in data(site, namespace), 20, "the store is gone")
    after = data(site, namespace)
    site.plane.annotate("secrets", namespace, "web-tls", formats=None)
    until(lambda: "tls.der" not in data(site, namespace), 20, "the last form is gone")

    assert after == {key: value for key, value in before.items() if key not in KEYS - {"tls.der", "key.der"}}
    assert data(site, namespace) == {key: value for key, value in before.items() if key not in KEYS}
    until(lambda: site.condition(namespace, kind="FormatsWritten") == ("", ""), 20, "nothing is told of forms")
    assert site.calls() == calls


def test_a_form_edited_by_hand_is_healed_without_the_ca(site: Site, namespace: str) -> None:
    chain = order(site, namespace)
    calls = site.calls()

    garbage = {"data": {"keystore.p12": manifests.encoded("garbage"), "tls.der": None}}
    site.plane.merge_patch("secrets", namespace, "web-tls", garbage)
    until(lambda: "tls.der" in data(site, namespace), 20, "healed")

    assert serials(site, namespace) == {int(chain.leaf.serial)}
    assert site.calls() == calls


def test_without_the_password_the_pem_files_are_renewed_and_the_store_follows(site: Site, namespace: str) -> None:
    site.order(namespace, formats="pkcs12,combined", pkcs12_password_secret="later")
    first = site.await_ready(namespace)
    message = site.await_condition(namespace, kind="FormatsWritten", status="False", reason="PasswordSecretMissing")
    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    second = site.await_new(namespace, after=first)

    assert "Secret later" in message
    assert "keystore.p12" not in data(site, namespace)

    site.plane.create(manifests.secret("later", namespace, {"password": PASSWORD}))
    site.await_condition(namespace, kind="FormatsWritten", status="True")
    store = pkcs12.load_pkcs12(manifests.decoded(site.secret(namespace), "keystore.p12"), PASSWORD.encode())
    assert store.cert is not None
    assert store.cert.certificate.fingerprint(hashes.SHA256()).hex() == second.leaf.fingerprint


@pytest.mark.parametrize("password", [b"\n", b"\xff\xfe", b"s3cr\0et"], ids=["empty", "no text", "a NUL"])
def test_what_can_be_no_password_keeps_nothing_but_the_stores_waiting(
    site: Site, namespace: str, password: bytes
) -> None:
    site.plane.create(manifests.secret("pw", namespace, {"password": password}))
    site.order(namespace, formats=ALL, pkcs12_password_secret="pw")
    first = site.await_ready(namespace)
    message = site.await_condition(namespace, kind="FormatsWritten", status="False", reason="PasswordSecretMissing")
    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    site.await_new(namespace, after=first)

    assert "holds no password: write text in UTF-8" in message
    assert "keystore.p12" not in data(site, namespace)

    site.plane.merge_patch("secrets", namespace, "pw", {"data": {"password": manifests.encoded(PASSWORD)}})
    site.await_condition(namespace, kind="FormatsWritten", status="True")


def test_the_password_is_nowhere_but_in_its_secret(site: Site, namespace: str) -> None:
    password = secrets.token_hex(12)
    site.plane.create(manifests.secret("pw", namespace, {"password": password}))
    site.order(namespace, formats=ALL, pkcs12_password_secret="pw")
    site.await_ready(namespace)
    site.await_condition(namespace, kind="FormatsWritten", status="True")

    assert password not in site.operator.log_text()
    assert password not in str(site.plane.get("certrenewals", namespace, "web-tls"))
    assert password not in str(site.plane.events(namespace, "web-tls"))
