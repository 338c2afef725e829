"""Each refusal of the CA goes one rung down, once, and the round ends with a certificate or with its words."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certrenewal.domain.certificate import Chain, parse_chain
from tests.cluster.site import PASSWORD_SECRET, SYSTEM, Site, condition_of, installed
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.controlplane import ControlPlane
from tests.testbed.processes import until

PASSWORD = (SYSTEM, PASSWORD_SECRET)
RENEWALS = ["RenewToken", "RenewMTLS"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How often the CA was asked for a certificate, by its own log."""

    renew: int
    sign: int

    @classmethod
    def of(cls, site: Site) -> Asked:
        """Until now."""
        return cls(renew=site.ca.count("/renew"), sign=site.ca.count("/sign"))

    def since(self, before: Asked) -> tuple[int, int]:
        """Renewals and signings after ``before``."""
        return self.renew - before.renew, self.sign - before.sign


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """The operator beside a CA that is an hour old: a renew token is judged as of a minute before its leaf's end."""
    ca = make_ca(backdate="0s")
    ca.grow_old()
    with installed(plane, ca) as running:
        yield running


@pytest.fixture
def authority(site: Site) -> Iterator[str]:
    """A CertAuthority of the test's own, and a provisioner of the same name that it signs with."""
    name = f"own-{secrets.token_hex(3)}"
    site.ca.add_provisioner(name)
    own = manifests.cert_authority(name, site.ca, password=PASSWORD)
    own["spec"]["provisioner"]["name"] = name
    site.plane.create(own)
    await_authority(site, name)
    yield name
    site.plane.delete("certauthorities", "", name)
    site.ca.edit(lambda config: remove_provisioner(config, name))


def await_authority(site: Site, name: str) -> None:
    """Wait until the CertAuthority is ready as its spec says now."""

    def current() -> bool:
        found = site.plane.get("certauthorities", "", name)
        ready = condition_of(found.get("status") or {}, "Ready")
        return (ready.get("status"), ready.get("observedGeneration")) == ("True", found["metadata"]["generation"])

    until(current, 20, f"CertAuthority {name} is ready")


def remove_provisioner(config: dict[str, Any], name: str) -> None:
    """Take a provisioner out of ca.json, where it is still there."""
    authority = config["authority"]
    authority["provisioners"] = [entry for entry in authority["provisioners"] if entry["name"] != name]


def revoked(site: Site, authority: str, chain: Chain) -> None:
    """The CA has revoked the serial."""
    site.ca.revoke(chain.leaf.serial)


def orphaned(site: Site, authority: str, chain: Chain) -> None:
    """The provisioner that signed it is gone from the CA, and the CertAuthority uses another."""
    site.plane.merge_patch("certauthorities", "", authority, {"spec": {"provisioner": {"name": site.ca.provisioner}}})
    await_authority(site, authority)
    site.ca.edit(lambda config: remove_provisioner(config, authority))


def frozen(site: Site, authority: str, chain: Chain) -> None:
    """The provisioner that signed it allows no renewal."""
    site.ca.edit_provisioner(authority, lambda entry: entry.setdefault("claims", {}).update(disableRenewal=True))


@pytest.mark.parametrize("refusal", [revoked, orphaned, frozen])
def test_a_refused_renewal_goes_down_each_rung_once(
    site: Site, namespace: str, authority: str, refusal: Callable[[Site, str, Chain], None]
) -> None:
    site.order(namespace, authority=authority)
    first = site.await_ready(namespace)
    refusal(site, authority, first)
    before = Asked.of(site)

    site.plane.annotate("certrenewals", namespace, "web-tls", renew_now="1")
    second = site.await_new(namespace, after=first)
    last = site.status(namespace)["lastRenewal"]

    assert (last["route"], last["reason"]) == ("Sign", "RenewalRequested")
    assert [rung["route"] for rung in last["refused"]] == RENEWALS
    assert all("401" in rung["message"] for rung in last["refused"])
    assert second.leaf.key_fingerprint != first.leaf.key_fingerprint
    assert site.condition(namespace) == ("True", "Issued")
    nothing_more_is_asked(site, namespace)
    assert Asked.of(site).since(before) == (2, 1)


def nothing_more_is_asked(site: Site, namespace: str) -> None:
    """Have the operator look once more: it finds nothing to do."""
    calls = site.calls()
    site.plane.annotate("secrets", namespace, "web-tls", restart="Never")
    until(lambda: site.status(namespace)["observedGeneration"] == 2, 10, "another look")
    assert site.calls() == calls


@pytest.fixture
def expired(site: Site, namespace: str, authority: str) -> Chain:
    """A Secret ``web-tls`` with a certificate that has just ended, long enough for a token, that nobody keeps yet."""
    crt, key = site.ca.certificate(
        f"web-tls.{namespace}.svc", (), "71s", "--not-before=-70s", f"--provisioner={authority}"
    )
    chain = parse_chain(crt.encode())
    ended = chain.leaf.not_after + timedelta(seconds=1)  # the CA lets the second itself pass
    until(lambda: datetime.now(UTC) >= ended, 10, "it has ended")
    site.plane.create(manifests.tls_secret("web-tls", namespace, crt, key, site.ca.root_pem))
    return chain


@pytest.mark.parametrize(
    ("wanted", "allowed", "route", "refused", "asked"),
    [
        (True, True, "RenewToken", [], (1, 0)),
        (True, False, "Sign", ["RenewToken"], (1, 1)),
        (False, True, "Sign", [], (0, 1)),
    ],
    ids=["wanted and allowed", "wanted alone", "allowed alone"],
)
def test_an_expired_certificate_is_renewed_where_both_sides_allow_it(
    site: Site,
    namespace: str,
    authority: str,
    expired: Chain,
    wanted: bool,
    allowed: bool,
    route: str,
    refused: list[str],
    asked: tuple[int, int],
) -> None:
    claims = {"allowRenewalAfterExpiry": allowed}
    site.ca.edit_provisioner(authority, lambda entry: entry.setdefault("claims", {}).update(claims))
    site.plane.merge_patch("certauthorities", "", authority, {"spec": {"renewAfterExpiry": wanted}})
    await_authority(site, authority)
    before = Asked.of(site)

    site.plane.annotate("secrets", namespace, "web-tls", renew="true", authority=authority)
    chain = site.await_ready(namespace)
    last = site.status(namespace)["lastRenewal"]

    assert (last["route"], last["reason"]) == (route, "Expired")
    assert [rung["route"] for rung in last.get("refused", [])] == refused
    assert all("expired" in rung["message"] for rung in last.get("refused", []))
    assert (chain.leaf.key_fingerprint == expired.leaf.key_fingerprint) is (route == "RenewToken")
    assert set(chain.leaf.names) == set(expired.leaf.names)
    nothing_more_is_asked(site, namespace)
    assert Asked.of(site).since(before) == asked


def test_a_renew_only_authority_that_is_refused_says_what_it_cannot_do(
    site: Site, namespace: str, authority: str
) -> None:
    site.plane.merge_patch("certauthorities", "", authority, {"spec": {"provisioner": None}})
    await_authority(site, authority)
    crt, key = site.ca.certificate(f"web-tls.{namespace}.svc")
    wish = manifests.prefixed(renew="true", authority=authority)
    site.plane.create(manifests.tls_secret("web-tls", namespace, crt, key, site.ca.root_pem, annotations=wish))
    first = site.await_ready(namespace)
    site.ca.revoke(first.leaf.serial)
    data, before = site.secret(namespace)["data"], Asked.of(site)

    site.plane.annotate("certrenewals", namespace, "web-tls", renew_now="1")
    message = site.await_condition(namespace, status="True", reason="AuthorityRefused")
    failure = site.status(namespace)["failure"]

    assert Asked.of(site).since(before) == (2, 0)
    assert "401" in message
    assert "spec.provisioner" in message
    assert (failure["count"], failure["reason"]) == (1, "AuthorityRefused")
    assert site.secret(namespace)["data"] == data


def test_an_authority_that_becomes_renew_only_forgets_its_provisioner(site: Site, authority: str) -> None:
    site.plane.merge_patch("certauthorities", "", authority, {"spec": {"provisioner": None}})
    await_authority(site, authority)

    assert "provisioner" not in site.plane.get("certauthorities", "", authority)["status"]
