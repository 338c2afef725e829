"""A certificate that is out of use is revoked: after its successor is in use, with its CertRenewal, or at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.site import OPEN_POLICY, PASSWORD_SECRET, SYSTEM, Site, condition_of, installed
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.controlplane import ControlPlane
from tests.testbed.processes import until
from tests.testbed.stepca import StepCA


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """The operator, which leaves replaced certificates for a second."""
    with installed(plane, make_ca(backdate="0s"), values={"revocation": {"grace": "1s"}}) as running:
        yield running


def is_revoked(ca: StepCA, chain_pem: bytes, key_pem: bytes) -> bool:
    """Whether the CA refuses to renew this certificate."""
    crt, key = ca.folder / "probe.crt", ca.folder / "probe.key"
    crt.write_bytes(chain_pem)
    key.write_bytes(key_pem)
    try:
        ca.step("ca", "renew", str(crt), str(key), "--force", f"--ca-url={ca.url}", f"--root={ca.root_file}")
    except RuntimeError:
        return True
    return False


def pair(site: Site, namespace: str) -> tuple[bytes, bytes]:
    """Chain and key in the Secret."""
    found = site.secret(namespace)
    return manifests.decoded(found, "tls.crt"), manifests.decoded(found, "tls.key")


def test_a_replaced_certificate_is_revoked_once_every_workload_runs_its_successor(site: Site, namespace: str) -> None:
    site.order(namespace, revoke="OnRenew")
    first = site.await_ready(namespace)
    old = pair(site, namespace)
    site.plane.create(manifests.deployment("web", namespace, manifests.volume("web-tls")))
    until(lambda: site.status(namespace).get("restarts") == "1/1", 20, "the workload")
    never = {"spec": {"template": {"metadata": {"labels": {manifests.NEVER_READY: "true"}}}}}
    site.plane.merge_patch("deployments.apps", namespace, "web", never)
    revocations = site.ca.count("/revoke")

    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    site.await_new(namespace, after=first)
    site.await_condition(namespace, kind="RolledOut", status="False", reason="Restarting")
    waiting = site.status(namespace)["retired"]
    early = site.ca.count("/revoke") - revocations
    ready = {"spec": {"template": {"metadata": {"labels": {manifests.NEVER_READY: None}}}}}
    site.plane.merge_patch("deployments.apps", namespace, "web", ready)
    site.await_rolled_out(namespace)
    until(lambda: "retired" not in site.status(namespace), 20, "revoked")

    assert [entry["serial"] for entry in waiting] == [first.leaf.serial]
    assert early == 0
    assert site.ca.count("/revoke", 200) == revocations + 1
    assert is_revoked(site.ca, *old)
    until(lambda: site.events(namespace, reason="Revoked"), 10, "told")
    assert first.leaf.serial in site.events(namespace, reason="Revoked")[0]["note"]


def test_nothing_is_revoked_that_nobody_asked_for(site: Site, namespace: str) -> None:
    site.order(namespace)
    first = site.await_ready(namespace)
    old = pair(site, namespace)

    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    site.await_new(namespace, after=first)

    assert "retired" not in site.status(namespace)
    assert "finalizers" not in site.plane.get("certrenewals", namespace, "web-tls")["metadata"]
    assert not is_revoked(site.ca, *old)


def held(site: Site, namespace: str) -> bool:
    """Whether the CertRenewal has the finalizer."""
    finalizers: list[str] = site.plane.get("certrenewals", namespace, "web-tls")["metadata"].get("finalizers", [])
    return finalizers == ["certrenewal.dev/revoke"]


def gone(site: Site, namespace: str) -> bool:
    """Whether there is no CertRenewal any more."""
    return site.plane.find("certrenewals", namespace, "web-tls") is None


@pytest.mark.parametrize("before", [False, True], ids=["by the operator", "somebody did it before"])
def test_the_certificate_is_revoked_before_its_certrenewal_goes(site: Site, namespace: str, before: bool) -> None:
    site.order(namespace, revoke="OnDelete")
    serial = site.await_ready(namespace).leaf.serial
    old, is_held = pair(site, namespace), held(site, namespace)  # it was before the certificate
    if before:
        site.ca.revoke(serial)

    site.plane.delete("secrets", namespace, "web-tls")

    until(lambda: gone(site, namespace), 20, "gone")
    assert is_held
    assert is_revoked(site.ca, *old)
    assert [event["reason"] for event in site.events(namespace) if "Revoked" in event["reason"]] == ["Revoked"]


def test_the_finalizer_goes_with_the_wish(site: Site, namespace: str) -> None:
    site.order(namespace, revoke="OnDelete")
    site.await_ready(namespace)
    old = pair(site, namespace)
    until(lambda: held(site, namespace), 10, "the finalizer")

    site.plane.annotate("secrets", namespace, "web-tls", revoke=None)
    until(lambda: not held(site, namespace), 20, "no finalizer")
    site.plane.delete("secrets", namespace, "web-tls")
    until(lambda: gone(site, namespace), 20, "gone")

    assert not is_revoked(site.ca, *old)


def test_a_certrenewal_that_is_to_go_waits_for_the_ca(site: Site, namespace: str) -> None:
    site.order(namespace, revoke="OnDelete")
    site.await_ready(namespace)
    old = pair(site, namespace)
    until(lambda: held(site, namespace), 10, "the finalizer")
    site.ca.stop()
    try:
        site.plane.delete("secrets", namespace, "web-tls")
        until(lambda: deleting(site, namespace), 20, "it is to go")
        until(lambda: not ready(site), 20, "the CA is missed")
        still_there = not gone(site, namespace)
    finally:
        site.ca.start()

    until(lambda: gone(site, namespace), 40, "gone once the CA is back")
    assert still_there
    assert is_revoked(site.ca, *old)


def deleting(site: Site, namespace: str) -> bool:
    """Whether the CertRenewal is to go, and has not gone."""
    return (
        "deletionTimestamp" in (site.plane.find("certrenewals", namespace, "web-tls") or {"metadata": {}})["metadata"]
    )


def ready(site: Site) -> bool:
    """Whether the default authority is ready."""
    status = site.plane.get("certauthorities", "", "default").get("status") or {}
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())


@pytest.mark.parametrize("kind", ["secrets", "certrenewals"])
def test_a_leaked_key_is_replaced_and_its_certificate_revoked_at_once(site: Site, namespace: str, kind: str) -> None:
    site.order(namespace)
    first = site.await_ready(namespace)
    old = pair(site, namespace)

    site.plane.annotate(kind, namespace, "web-tls", revoke_now="1")
    second = site.await_new(namespace, after=first)
    until(lambda: "retired" not in site.status(namespace), 20, "revoked")
    site.operator.restart()
    site.order(namespace, "another")
    site.await_ready(namespace, "another")

    assert second.leaf.key_fingerprint != first.leaf.key_fingerprint
    assert site.status(namespace)["lastRenewal"]["reason"] == "RevocationRequested"
    assert site.chain(namespace).leaf.fingerprint == second.leaf.fingerprint
    assert is_revoked(site.ca, *old)


def test_a_renew_only_authority_gives_another_key_and_says_that_it_cannot_revoke(site: Site, namespace: str) -> None:
    site.plane.create(manifests.cert_authority("no-revoke", site.ca, password=None, policy=OPEN_POLICY))
    crt, key = site.ca.certificate(f"web-tls.{namespace}.svc")
    wish = manifests.prefixed(renew="true", authority="no-revoke")
    site.plane.create(manifests.tls_secret("web-tls", namespace, crt, key, annotations=wish))
    first = site.await_ready(namespace)

    site.plane.annotate("secrets", namespace, "web-tls", revoke_now="1")
    second = site.await_new(namespace, after=first)
    until(lambda: site.events(namespace, reason="NotRevoked"), 20, "told")
    site.plane.delete("certauthorities", "", "no-revoke")

    assert second.leaf.key_fingerprint != first.leaf.key_fingerprint
    assert site.status(namespace)["lastRenewal"]["route"] == "Rekey"
    assert "spec.provisioner" in site.events(namespace, reason="NotRevoked")[0]["note"]


def test_where_nothing_may_replace_it_a_leaked_certificate_is_revoked_all_the_same(site: Site, namespace: str) -> None:
    policy = [*OPEN_POLICY, {"namespaces": [namespace], "names": ["leaked.example.net"]}]
    own = manifests.cert_authority("tight", site.ca, password=(SYSTEM, PASSWORD_SECRET), policy=policy)
    site.plane.create(own)
    site.order(namespace, names="leaked.example.net", authority="tight")
    site.await_ready(namespace)
    old = pair(site, namespace)
    site.plane.merge_patch("certauthorities", "", "tight", {"spec": {"policy": OPEN_POLICY}})
    until(lambda: observed(site, "tight") == 2, 20, "the policy holds")

    site.plane.annotate("secrets", namespace, "web-tls", revoke_now="1")
    until(lambda: site.events(namespace, reason="Revoked"), 20, "revoked")
    site.plane.delete("certauthorities", "", "tight")

    assert pair(site, namespace) == old
    assert is_revoked(site.ca, *old)


def observed(site: Site, authority: str) -> int:
    """Which generation of an authority its condition is about."""
    status = site.plane.get("certauthorities", "", authority).get("status") or {}
    return int(condition_of(status, "Ready").get("observedGeneration", 0))


def test_a_ca_without_a_database_says_clearly_that_it_cannot(site: Site, namespace: str, make_ca: MakeCA) -> None:
    ca = make_ca("Forgetful", backdate="0s")
    ca.stop()
    ca.edit(without_database)
    ca.start()
    site.plane.create(manifests.secret("forgetful", SYSTEM, {"password": ca.password}))
    site.plane.create(manifests.cert_authority("forgetful", ca, password=(SYSTEM, "forgetful")))
    site.order(namespace, authority="forgetful", revoke="OnRenew")
    first = site.await_ready(namespace)

    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    site.await_new(namespace, after=first)
    until(lambda: site.events(namespace, reason="NotRevoked"), 20, "told")
    site.plane.delete("certauthorities", "", "forgetful")

    assert "keeps no database" in site.events(namespace, reason="NotRevoked")[0]["note"]
    assert "retired" not in site.status(namespace)


def without_database(config: dict[str, Any]) -> None:
    """Take the database out of ca.json."""
    config.pop("db")
