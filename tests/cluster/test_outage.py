"""An outage of the CA loses nothing: one probe at a time, every Secret unharmed, the nearest expiry first afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certrenewal.domain.durations import parse_duration
from certrenewal.domain.status import moment_of
from tests.cluster.site import PASSWORD_SECRET, SYSTEM, Site, condition_of, installed
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.controlplane import ControlPlane
from tests.testbed.faults import ca_proxy
from tests.testbed.processes import until

PASSWORD = (SYSTEM, PASSWORD_SECRET)
MANY = 64
WORKERS = 32
NEIGHBOURS = 2  # one is asked for and the next one made ready, so that these may change places
CONCURRENCY = 16  # by default
SHORT_LIVES = {"soon": "60s", "later": "66s", "last": "72s"}
EARLY = "85%"  # due within the first sixth of the life, so that nobody waits for two thirds of a minute


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """The operator with a short Lease, which it loses while it is suspended."""
    with installed(plane, make_ca(backdate="0s"), environment={"CERTRENEWAL_LEASE_DURATION": "5s"}) as running:
        yield running


@pytest.fixture
def authority(site: Site) -> Iterator[str]:
    """A name for a CertAuthority of the test's own, removed afterwards."""
    name = f"own-{secrets.token_hex(3)}"
    yield name
    site.plane.delete("certauthorities", "", name)


def conditions(site: Site, namespace: str) -> set[tuple[str, str]]:
    """Status and reason of Ready of all CertRenewals in a namespace."""
    found = [condition_of(item.get("status") or {}, "Ready") for item in site.plane.objects("certrenewals", namespace)]
    return {(ready.get("status", ""), ready.get("reason", "")) for ready in found}


def secrets_read(site: Site) -> float:
    """How often the operator has read a Secret."""
    return site.operator.metric("certrenewal_api_requests_total", method="GET", resource="secrets")


def until_read(site: Site, namespace: str, names: Sequence[str], done: Callable[[], object], what: str) -> None:
    """Wait for ``done`` as somebody who reads every Secret meanwhile: each pair fits and is valid, always."""

    def read() -> bool:
        for name in names:
            site.chain(namespace, name)
        return bool(done())

    until(read, 40, what)


def lateness(seen: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """How many places after its turn each name was first seen, where the last name is to be the first."""
    rank = {name: place for place, name in enumerate(reversed(names))}
    return {name: place - rank[name] for place, name in enumerate(dict.fromkeys(seen))}


def test_a_dead_ca_gets_probes_alone_and_then_the_nearest_expiry_first(
    site: Site, namespace: str, authority: str, tmp_path: Path
) -> None:
    """The longest life is ordered first, so that neither age nor name gives the order."""
    names = [f"web-{number:02}" for number in range(MANY)]
    with ca_proxy(site.ca, tmp_path) as proxy:
        limits = {"concurrency": 1, "requestsPerSecond": 50}
        site.plane.create(manifests.cert_authority(authority, site.ca, password=PASSWORD, url=proxy.url, limits=limits))
        for number, name in enumerate(names):
            site.order(namespace, name, authority=authority, duration=f"{100 + MANY - number}h")
        until(lambda: conditions(site, namespace) == {("True", "Issued")}, 40, "all are issued")
        asked = len(proxy.requests)

        dead = proxy.cut_before("*", "", times=None)
        for name in names:
            site.plane.annotate("certrenewals", namespace, name, renew_now="1")
        until(lambda: conditions(site, namespace) == {("True", "AuthorityUnreachable")}, 40, "all say so")
        opened = len(proxy.requests)
        until(lambda: len(proxy.requests) >= opened + 2, 40, "two more probes")
        attempts = [seen for seen in proxy.requests[asked:opened] if seen.method == "POST"]
        probes = {(seen.method, seen.path) for seen in proxy.requests[opened:]}
        ready = condition_of(site.plane.get("certauthorities", "", authority)["status"], "Ready")
        failures = {site.status(namespace, name)["failure"]["reason"] for name in names}
        calls, recovered = len(site.ca.calls()), datetime.now(UTC)
        proxy.remove(dead)
        until(lambda: conditions(site, namespace) == {("True", "Renewed")}, 60, "all are renewed")

    assert len(attempts) == 1
    assert probes == {("GET", "/health")}
    assert (ready["status"], ready["reason"]) == ("False", "AuthorityUnreachable")
    assert failures == {"AuthorityUnreachable"}
    renewed = [call["subject"].partition(".")[0] for call in site.ca.calls()[calls:] if call["path"] == "/1.0/renew"]
    assert sorted(renewed) == names
    looked_at = [
        record["objectRef"]["name"]
        for record in site.requests(namespace, recovered, verb="get")
        if record["objectRef"]["resource"] == "secrets"
    ]
    assert all(abs(places) <= NEIGHBOURS for places in lateness(looked_at, names).values()), looked_at
    # How long a look takes on its way to the CA is the API server's affair: others may overtake one then.
    assert min(lateness(renewed, names).values()) >= -NEIGHBOURS, renewed


def test_what_waits_for_its_turn_when_the_ca_dies_is_not_sent(
    site: Site, namespace: str, authority: str, tmp_path: Path
) -> None:
    names = [f"web-{number}" for number in range(8)]
    with ca_proxy(site.ca, tmp_path) as proxy:
        own = manifests.cert_authority(
            authority, site.ca, password=PASSWORD, url=proxy.url, limits={"concurrency": 1, "requestsPerSecond": 50}
        )
        site.plane.create(own)
        for name in names:
            site.order(namespace, name, authority=authority)
        until(lambda: conditions(site, namespace) == {("True", "Issued")}, 20, "all are issued")
        planned = site.operator.metric("certrenewal_schedule_length")

        held = proxy.delay("POST", "/renew", 3, times=1)
        for name in names:
            site.plane.annotate("certrenewals", namespace, name, renew_now="1")
        # One is sent, one is ready to be, and the others have no next look before they are called.
        others = len(names) - 2
        until(
            lambda: held.hits and site.operator.metric("certrenewal_schedule_length") <= planned - others,
            20,
            "one is sent, the others wait",
        )
        asked = len(proxy.requests)
        dead = proxy.cut_before("*", "", times=None)
        until(lambda: ("True", "Issued") not in conditions(site, namespace), 20, "all have been tried")
        sent = [seen.path for seen in proxy.requests[asked:] if seen.method == "POST"]
        proxy.remove(dead)
        until(lambda: conditions(site, namespace) == {("True", "Renewed")}, 40, "all are renewed")

    assert len(sent) == 1


def test_no_more_is_asked_at_a_time_than_the_authority_allows(
    site: Site, namespace: str, authority: str, tmp_path: Path
) -> None:
    names = [f"web-{number}" for number in range(6)]
    most = 0
    with ca_proxy(site.ca, tmp_path) as proxy:
        own = manifests.cert_authority(
            authority, site.ca, password=PASSWORD, url=proxy.url, limits={"concurrency": 2, "requestsPerSecond": 50}
        )
        site.plane.create(own)
        site.order(namespace, "first", authority=authority)
        site.await_ready(namespace, "first")
        proxy.delay("POST", "/sign", 0.5)
        for name in names:
            site.order(namespace, name, authority=authority)

        def all_ready() -> bool:
            nonlocal most
            most = max(most, sum(seen.status == 0 for seen in proxy.requests))
            return all(site.condition(namespace, name)[0] == "True" for name in names)

        until(all_ready, 20, "all are issued")

    assert most == 2


def test_a_ca_that_hangs_keeps_nobody_from_another(site: Site, namespace: str, authority: str, tmp_path: Path) -> None:
    """More certificates wait for the one than the operator has workers; none has been given up yet."""
    names = [f"web-{number:02}" for number in range(WORKERS + 8)]
    with ca_proxy(site.ca, tmp_path) as proxy:
        site.plane.create(manifests.cert_authority(authority, site.ca, password=PASSWORD, url=proxy.url))
        for name in names:
            site.order(namespace, name, authority=authority)
        until(lambda: conditions(site, namespace) == {("True", "Issued")}, 20, "all are issued")
        hung = proxy.delay("POST", "/renew", 3600)
        for name in names:
            site.plane.annotate("certrenewals", namespace, name, renew_now="1")
        until(lambda: hung.hits == CONCURRENCY, 20, "as many hang as are sent at a time")

        for name in ("good-1", "good-2", "good-3"):
            site.order(namespace, name)
            site.await_ready(namespace, name)

        assert conditions(site, namespace) == {("True", "Issued")}


def test_a_ca_that_hangs_is_told_and_healed(site: Site, namespace: str) -> None:
    site.order(namespace)
    first = site.await_ready(namespace)
    data = site.secret(namespace)["data"]

    site.ca.pause()
    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    until(lambda: site.condition(namespace) == ("True", "AuthorityUnreachable"), 40, "the outage is told")
    message, failure, kept = site.message(namespace), site.status(namespace)["failure"], site.secret(namespace)["data"]
    site.ca.resume()
    site.await_new(namespace, after=first, patience=40)

    assert site.ca.url in message
    assert "in time" in message
    assert failure["reason"] == "AuthorityUnreachable"
    assert kept == data
    assert site.condition(namespace) == ("True", "Renewed")
    assert "failure" not in site.status(namespace)


def test_a_token_that_a_restart_of_the_ca_made_worthless_is_replaced_at_once(
    site: Site, namespace: str, authority: str, tmp_path: Path
) -> None:
    """step-ca takes no token that was issued in a second before it started."""
    with ca_proxy(site.ca, tmp_path) as proxy:
        site.plane.create(manifests.cert_authority(authority, site.ca, password=PASSWORD, url=proxy.url))
        held = proxy.delay("POST", "/sign", 4, times=1)
        site.order(namespace, authority=authority)
        until(lambda: held.hits > 0, 20, "the token is on its way")
        minted = datetime.now(UTC).replace(microsecond=0)
        until(lambda: datetime.now(UTC) >= minted + timedelta(seconds=1), 5, "the next second")
        refused, signed = site.ca.count("/sign", 401), site.ca.count("/sign", 201)
        site.ca.restart()
        site.await_ready(namespace)

    assert site.ca.count("/sign", 401) == refused + 1
    assert site.ca.count("/sign", 201) == signed + 1
    assert site.condition(namespace) == ("True", "Issued")
    assert site.events(namespace, reason="AuthorityRefused") == []


def test_short_certificates_survive_an_outage_across_their_due_time(site: Site, namespace: str) -> None:
    for name, life in SHORT_LIVES.items():
        site.order(namespace, name, duration=life, renew_before=EARLY)
    first = {name: site.await_ready(namespace, name) for name in SHORT_LIVES}

    site.ca.stop()

    def told() -> bool:
        return conditions(site, namespace) == {("True", "AuthorityUnreachable")}

    until_read(site, namespace, list(SHORT_LIVES), told, "the outage is told")
    site.ca.start()

    def renewed() -> bool:
        return conditions(site, namespace) == {("True", "Renewed")}

    until_read(site, namespace, list(SHORT_LIVES), renewed, "all are renewed")
    for name, chain in first.items():
        assert site.chain(namespace, name).leaf.not_before < chain.leaf.not_after
        assert site.status(namespace, name)["lastRenewal"]["reason"] == "RenewalDue"


def test_an_operator_that_was_suspended_renews_at_once_what_is_overdue(site: Site, namespace: str) -> None:
    for name, life in SHORT_LIVES.items():
        site.order(namespace, name, duration=life, renew_before=EARLY)
    first = {name: site.await_ready(namespace, name) for name in SHORT_LIVES}
    planned = [moment_of(site.status(namespace, name)["renewalTime"]) for name in SHORT_LIVES]
    due = max(moment for moment in planned if moment is not None)
    calls = site.calls()

    site.operator.process.pause()
    until_read(site, namespace, list(SHORT_LIVES), lambda: datetime.now(UTC) > due, "all are overdue")
    asleep = site.calls()
    site.operator.process.resume()

    def renewed() -> bool:
        return conditions(site, namespace) == {("True", "Renewed")}

    until_read(site, namespace, list(SHORT_LIVES), renewed, "all are renewed")
    assert asleep == calls
    assert site.calls() == calls + len(SHORT_LIVES)
    for name, chain in first.items():
        assert due <= site.chain(namespace, name).leaf.not_before < chain.leaf.not_after
        assert site.status(namespace, name)["lastRenewal"]["reason"] == "RenewalDue"


@pytest.mark.parametrize("life", ["1m", "5m", "24h", "8760h", "87600h"])
def test_a_life_of_any_length_is_given_planned_and_given_again(site: Site, namespace: str, life: str) -> None:
    site.order(namespace, duration=life)
    first = site.await_ready(namespace)
    planned = moment_of(site.status(namespace)["renewalTime"])

    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    second = site.await_new(namespace, after=first)

    assert first.leaf.lifetime == second.leaf.lifetime == parse_duration(life)
    assert planned is not None
    assert first.leaf.not_before < planned < first.leaf.not_before + first.leaf.lifetime * 2 / 3
    assert second.leaf.key_fingerprint == first.leaf.key_fingerprint
    assert site.condition(namespace) == ("True", "Renewed")


@pytest.mark.parametrize(
    ("status", "body", "headers", "words"),
    [
        (429, '{"status":429,"message":"too many"}', {"Retry-After": "2"}, "429: too many"),
        (503, "<html>upstream</html>", {"Content-Type": "text/html"}, "503: Service Unavailable"),
    ],
    ids=["429 with Retry-After", "503 in HTML"],
)
def test_a_ca_that_says_later_is_told_as_unreachable(
    site: Site,
    namespace: str,
    authority: str,
    tmp_path: Path,
    status: int,
    body: str,
    headers: dict[str, str],
    words: str,
) -> None:
    with ca_proxy(site.ca, tmp_path) as proxy:
        site.plane.create(manifests.cert_authority(authority, site.ca, password=PASSWORD, url=proxy.url))
        site.order(namespace, authority=authority)
        first = site.await_ready(namespace)
        data, calls = site.secret(namespace)["data"], site.calls()

        later = proxy.answer("POST", "/renew", status, body, headers=headers, times=None)
        site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
        message = site.await_condition(namespace, status="True", reason="AuthorityUnreachable")
        kept, asked = site.secret(namespace)["data"], site.calls()
        proxy.remove(later)
        site.await_new(namespace, after=first)

    assert words in message
    assert kept == data
    assert asked == calls
    assert site.calls() == calls + 1
    assert "failure" not in site.status(namespace)
