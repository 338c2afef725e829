"""Guards: only Services of the own namespace are asked, and what they show is judged by its fingerprint alone."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from certrenewal import handshake
from certrenewal.controller import serving
from certrenewal.controller.cache import Key
from certrenewal.controller.serving import Inquiries
from certrenewal.domain.certificate import serial_of
from certrenewal.domain.reasons import Reason
from certrenewal.domain.serving import (
    SERVING,
    Answer,
    Endpoint,
    Question,
    Target,
    endpoints_of,
    is_answered,
    is_told,
    judge,
    objection,
    question_of,
    refuse_foreign_host,
    service_of,
    target_of,
)
from certrenewal.domain.spec import InvalidSpec, Verify
from certrenewal.domain.status import Condition, Status, condition_of, with_condition, without_condition
from certrenewal.handshake import NoCertificate, served_leaf
from certrenewal.kube.errors import Forbidden, Unavailable
from tests.testbed import tls
from tests.unit.builders import NOON

OURS, OLD = "aa" * 32, "bb" * 32
WEB = Target(service="web", server_name="web.shop.svc")
KEY = Key("shop", "web-tls")


def a_question(*names: str, host: str | None = None, port: int = 443, **changes: Any) -> Question:
    facts: dict[str, Any] = {"uid": "6f1c", "generation": 1, "fingerprint": OURS, "serial": "17"}
    return Question(**{**facts, "names": names, "verify": Verify(port=port, host=host), **changes})


# -- the Service ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["web", "web.shop", "web.shop.svc", "web.shop.svc.example.org"])
def test_a_service_of_the_own_namespace_has_four_names(host: str) -> None:
    assert service_of(host, "shop", "example.org") == "web"


@pytest.mark.parametrize(
    "host",
    [
        "web.bank", "web.bank.svc", "web.shop.svc.cluster.local", "web.shop.com", "a.web.shop.svc", "web.", ".shop", "",
        "*.shop.svc", "169.254.169.254", "web.shop.svc.", "shop.svc.example.org",
    ],
)  # fmt: skip
def test_nothing_else_is_a_service_of_the_own_namespace(host: str) -> None:
    assert service_of(host, "shop", "example.org") is None


def test_a_host_of_another_namespace_is_refused_with_the_field_that_names_it() -> None:
    refuse_foreign_host(None, "spec.verify.host", namespace="shop", cluster_domain="cluster.local")
    refuse_foreign_host(Verify(port=443), "spec.verify.host", namespace="shop", cluster_domain="cluster.local")
    with pytest.raises(InvalidSpec, match=r"spec\.verify\.host: 'web\.bank' .*Service of namespace shop"):
        refuse_foreign_host(
            Verify(port=443, host="web.bank"), "spec.verify.host", namespace="shop", cluster_domain="cluster.local"
        )


@pytest.mark.parametrize(
    ("names", "host", "service", "server_name"),
    [
        pytest.param(["web.shop.svc"], None, "web", "web.shop.svc", id="the Service that the certificate names"),
        pytest.param(
            ["x.org", "api.shop", "web.shop"], None, "api", "api.shop", id="the first Service of several names"
        ),
        pytest.param(["web.bank.svc", "web.shop.svc"], None, "web", "web.shop.svc", id="not another namespace's"),
        pytest.param(["web.shop.svc"], "web", "web", "web.shop.svc", id="the short name"),
        pytest.param(["web.shop.svc.cluster.local"], "web", "web", "web.shop.svc.cluster.local", id="the long name"),
        pytest.param(["web.shop", "web.shop.svc"], "web.shop", "web", "web.shop", id="the name as it was written"),
        pytest.param(["*.shop.svc"], "web", "web", "web.shop.svc", id="a wildcard over the Service"),
        pytest.param(["10.0.0.1", "a@b.c", "x.org"], "web", "web", "x.org", id="a name from outside"),
        pytest.param(["*.x.org"], "web", "web", "web.x.org", id="a wildcard from outside"),
        pytest.param(["spiffe://x.org/web", "fd00::1"], "web", "web", "web.shop.svc", id="no DNS name at all"),
        pytest.param(["a..b", ".x"], "web", "web", "web.shop.svc", id="no DNS name that can be sent"),
    ],
)
def test_the_service_and_the_name_that_its_clients_send(
    names: list[str], host: str | None, service: str, server_name: str
) -> None:
    target = target_of(a_question(*names, host=host), namespace="shop", cluster_domain="cluster.local")

    assert target == Target(service=service, server_name=server_name)


@pytest.mark.parametrize("names", [[], ["x.org"], ["*.shop.svc"], ["web"], ["web.bank.svc"], ["web-0.web.shop.svc"]])
def test_a_certificate_that_names_no_service_needs_a_host(names: list[str]) -> None:
    assert target_of(a_question(*names), namespace="shop", cluster_domain="cluster.local") is None


# -- its endpoints -------------------------------------------------------------------------------------------------


def a_service(*ports: Mapping[str, Any], families: tuple[str, ...] = ("IPv4",)) -> dict[str, Any]:
    return {"spec": {"ports": list(ports), "ipFamilies": list(families)}}


def a_slice(
    *addresses: str, ports: Any = ({"name": "https", "port": 8443},), family: str = "IPv4", ready: bool | None = True
) -> dict[str, Any]:
    conditions = {} if ready is None else {"ready": ready}
    endpoints = [{"addresses": [address], "conditions": conditions} for address in addresses]
    return {"addressType": family, "endpoints": endpoints, "ports": list(ports) if ports is not None else None}


HTTPS = {"name": "https", "port": 443, "protocol": "TCP"}


@pytest.mark.parametrize(
    ("service", "slices", "expected"),
    [
        pytest.param(a_service(HTTPS), [a_slice("10.0.0.2", "10.0.0.1")], ["10.0.0.1:8443", "10.0.0.2:8443"], id="name"),
        pytest.param(
            a_service({"port": 443}), [a_slice("10.0.0.1", ports=({"name": "", "port": 8443},))], ["10.0.0.1:8443"], id="no name"
        ),
        pytest.param(
            a_service(HTTPS),
            [a_slice("10.0.0.1"), a_slice("10.0.0.2", ports=({"name": "https", "port": 9443},))],
            ["10.0.0.1:8443", "10.0.0.2:9443"],
            id="a named port that differs between pods",
        ),
        pytest.param(
            a_service({"name": "web", "port": 80}),
            [a_slice("10.0.0.1", ports=({"name": "web", "port": 80}, {"name": "tls", "port": 443}))],
            ["10.0.0.1:443"],
            id="a port of the pods alone",
        ),
        pytest.param(
            a_service(HTTPS),
            [a_slice("10.0.0.1", ports=({"name": "https", "port": 8443}, {"name": "other", "port": 443}))],
            ["10.0.0.1:8443"],
            id="the Service's port goes first",
        ),
        pytest.param(a_service(), [a_slice("10.0.0.1", ports=None)], ["10.0.0.1:443"], id="headless, without ports"),
        pytest.param(
            a_service({**HTTPS, "protocol": "UDP"}),
            [a_slice("10.0.0.1", ports=({"name": "https", "port": 443, "protocol": "UDP"},))],
            [],
            id="UDP",
        ),
        pytest.param(a_service(HTTPS), [a_slice("10.0.0.1", ready=False)], [], id="not ready"),
        pytest.param(a_service(HTTPS), [a_slice("10.0.0.1", ready=None)], ["10.0.0.1:8443"], id="nobody knows: ready"),
        pytest.param(a_service(HTTPS), [a_slice("10.0.0.1"), a_slice("10.0.0.1")], ["10.0.0.1:8443"], id="in two slices"),
        pytest.param(
            a_service(HTTPS, families=("IPv6", "IPv4")),
            [a_slice("10.0.0.1"), a_slice("fd00::1", family="IPv6")],
            ["[fd00::1]:8443"],
            id="of two families the first",
        ),
        pytest.param(
            a_service(HTTPS, families=("IPv6", "IPv4")), [a_slice("10.0.0.1")], ["10.0.0.1:8443"], id="of two the one used"
        ),
        pytest.param(a_service(HTTPS), [a_slice("db.example.org", family="FQDN")], [], id="no DNS names"),
        pytest.param(a_service(HTTPS), [{"addressType": "IPv4", "endpoints": None, "ports": None}], [], id="an empty slice"),
        pytest.param(a_service({"name": "web", "port": 80}), [a_slice("10.0.0.1")], [], id="no such port anywhere"),
    ],
)  # fmt: skip
def test_ready_endpoints_behind_the_port(
    service: dict[str, Any], slices: list[dict[str, Any]], expected: list[str]
) -> None:
    assert [str(endpoint) for endpoint in endpoints_of(service, slices, 443)] == expected


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("169.254.169.254", "link-local"), ("fe80::1", "link-local"), ("::ffff:169.254.169.254", "link-local"),
        ("127.0.0.1", "loopback"), ("::1", "loopback"), ("::ffff:127.0.0.1", "loopback"), ("0.0.0.0", "unspecified"),
        ("224.0.0.1", "multicast"), ("metadata.internal", "no IP address"),
    ],
)  # fmt: skip
def test_addresses_that_are_nobodys_pod_are_not_asked(address: str, words: str) -> None:
    assert words in (objection(Endpoint(address, 443)) or "")


@pytest.mark.parametrize("address", ["10.1.2.3", "192.0.2.2", "100.64.0.1", "fd00::1", "2001:db8::1"])
def test_addresses_of_pods_are_asked(address: str) -> None:
    assert objection(Endpoint(address, 443)) is None


# -- the verdict ---------------------------------------------------------------------------------------------------


def shows(fingerprint: str, number: int, serial: str = "17") -> Answer:
    return Answer(endpoint=Endpoint(f"10.0.0.{number}", 8443), fingerprint=fingerprint, serial=serial)


def silent(number: int) -> Answer:
    return Answer(endpoint=Endpoint(f"10.0.0.{number}", 8443), failure="Connection refused")


def test_the_same_everywhere_is_true() -> None:
    verdict = judge(a_question(), WEB, [shows(OURS, n) for n in (1, 2, 3)], total=3)

    assert (verdict.type, verdict.status, verdict.reason) == (SERVING, "True", Reason.SERVING)
    assert verdict.message == "3 of 3 endpoints of Service web serve serial 17"


def test_another_certificate_is_named_with_its_address_and_serial() -> None:
    verdict = judge(a_question(), WEB, [shows(OURS, 1), shows(OLD, 2, "16")], total=2)

    assert (verdict.status, verdict.reason) == ("False", Reason.SERVING_OTHER)
    assert verdict.message == (
        "1 of 2 endpoints of Service web serve serial 17; another certificate is served at 10.0.0.2:8443 (serial 16)"
    )


def test_the_fingerprint_decides_and_not_the_serial() -> None:
    assert judge(a_question(), WEB, [shows(OLD, 1, "17")], total=1).reason is Reason.SERVING_OTHER


def test_three_are_named_and_the_rest_counted() -> None:
    message = judge(a_question(), WEB, [shows(OLD, n, "16") for n in range(1, 8)], total=7).message

    assert message.count("serial 16") == 3
    assert message.endswith(" and 4 more")


def test_nobody_who_answers_is_not_serving() -> None:
    verdict = judge(a_question(), WEB, [shows(OURS, 1), silent(2)], total=2)

    assert (verdict.status, verdict.reason) == ("False", Reason.NOT_SERVING)
    assert "no TLS server answers at 10.0.0.2:8443 (Connection refused)" in verdict.message


def test_another_certificate_counts_for_more_than_silence_and_both_are_told() -> None:
    verdict = judge(a_question(), WEB, [shows(OLD, 1, "16"), silent(2)], total=2)

    assert verdict.reason is Reason.SERVING_OTHER
    assert "10.0.0.1:8443 (serial 16)" in verdict.message
    assert "10.0.0.2:8443 (Connection refused)" in verdict.message


def test_no_endpoint_is_not_serving() -> None:
    verdict = judge(a_question(), WEB, [], total=0)

    assert (verdict.status, verdict.reason) == ("False", Reason.NOT_SERVING)
    assert "no ready endpoint for port 443" in verdict.message


def test_those_that_were_not_asked_are_counted() -> None:
    verdict = judge(a_question(), WEB, [shows(OURS, n) for n in range(100)], total=512)

    assert verdict.status == "True"
    assert "(412 more were not asked)" in verdict.message


# -- the condition and its certificate -----------------------------------------------------------------------------


def a_status(verdict: str = "True", generation: int = 1, fingerprint: str = OURS) -> Status:
    condition = Condition(type=SERVING, status=verdict, reason=Reason.SERVING, message="")
    certificate = {"fingerprint": fingerprint, "serial": "17", "names": ["web.shop.svc"]}
    return with_condition({"certificate": certificate}, condition, generation=generation, now=NOON)


def test_a_question_is_about_the_certificate_in_status() -> None:
    asked = question_of(a_status(), Verify(port=443), uid="6f1c", generation=1)

    assert asked == a_question("web.shop.svc")
    assert question_of({}, Verify(port=443), uid="6f1c", generation=1) is None


@pytest.mark.parametrize(
    ("status", "told", "answered"),
    [
        pytest.param(a_status(), True, True, id="served"),
        pytest.param(a_status("False"), True, False, id="not served"),
        pytest.param(a_status("Unknown"), True, False, id="not known"),
        pytest.param(a_status(generation=0), True, False, id="served under another spec"),
        pytest.param(a_status(fingerprint=OLD), False, False, id="another certificate"),
        pytest.param(without_condition(a_status(), SERVING), False, False, id="never asked"),
        pytest.param({}, False, False, id="nothing"),
    ],
)
def test_once_served_everywhere_it_is_not_asked_again(status: Status, told: bool, answered: bool) -> None:
    assert is_told(status, a_question()) is told
    assert is_answered(status, a_question()) is answered


def test_a_condition_that_is_taken_away_leaves_the_others() -> None:
    ready = Condition(type="Ready", status="True", reason=Reason.ISSUED, message="")
    status = without_condition(with_condition(a_status(), ready, generation=1, now=NOON), SERVING)

    assert condition_of(status, SERVING) == {}
    assert condition_of(status, "Ready")["status"] == "True"
    assert without_condition({}, SERVING) == {}


# -- the handshake -------------------------------------------------------------------------------------------------

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def pair() -> tls.Pair:
    return tls.self_signed(["web.shop.svc"])


def context_of(pair: tls.Pair, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair.write(folder, "server"))
    return context


async def asked(handle: Handle, context: ssl.SSLContext | None = None) -> bytes:
    """The leaf that a loopback server with this handler shows."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    try:
        return await served_leaf("127.0.0.1", server.sockets[0].getsockname()[1], "web.shop.svc")
    finally:
        server.close()


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.read()
    except OSError:
        pass
    finally:
        writer.close()


def der(pair: tls.Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("mutual", [False, True], ids=["any client", "client certificate wanted"])
async def test_the_leaf_is_had_from_every_tls_server(
    pair: tls.Pair, tmp_path: Path, version: ssl.TLSVersion, mutual: bool
) -> None:
    context = context_of(pair, tmp_path)
    context.minimum_version = context.maximum_version = version
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=pair.certificate)

    assert await asked(idle, context) == der(pair)


async def test_the_name_is_sent_by_which_a_server_picks_its_certificate(pair: tls.Pair, tmp_path: Path) -> None:
    context = context_of(tls.self_signed(["other.example.org"]), tmp_path / "other")
    named = context_of(pair, tmp_path / "named")
    seen: list[str | None] = []

    def pick(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        seen.append(name)
        connection.context = named

    context.sni_callback = pick

    assert await asked(idle, context) == der(pair)
    assert seen == ["web.shop.svc"]


async def plain_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()
    writer.close()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1 << 16)
    writer.close()


async def rambling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Endless records of a handshake that never comes to its end."""
    record = b"\x16\x03\x03\x40\x00" + b"\x0b\xff\xff\xff" + b"\0" * (0x4000 - 4)
    try:
        while True:
            writer.write(record)
            await writer.drain()
    except OSError:
        writer.close()


@pytest.mark.parametrize(
    ("handle", "words"),
    [(plain_http, "wrong version number"), (hang_up, "closed the connection"), (rambling, "TLS fails|does not end")],
    ids=["plain HTTP", "hangs up", "rambles"],
)
async def test_what_is_no_tls_server_is_told_in_a_few_words(handle: Handle, words: str) -> None:
    with pytest.raises(NoCertificate, match=words):
        await asked(handle)


async def test_silence_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "PATIENCE", 0.2)

    with pytest.raises(NoCertificate, match=r"no answer within 0\.2 s"):
        await asked(idle)


async def test_a_closed_port_is_told() -> None:
    server = await asyncio.start_server(idle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()

    with pytest.raises(NoCertificate, match="refused"):
        await served_leaf("127.0.0.1", port, "web.shop.svc")


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_certificate_message_that_was_cut_off_is_none(pair: tls.Pair, cut: int) -> None:
    leaf = der(pair)
    chain = len(leaf).to_bytes(3) + leaf
    message = b"\x0b" + (len(chain) + 3).to_bytes(3) + len(chain).to_bytes(3) + chain
    record = b"\x16\x03\x03" + len(message).to_bytes(2) + message

    assert handshake._plain_leaf(record) == leaf
    assert handshake._plain_leaf(record[: len(record) - 1 - cut]) is None
    assert handshake._plain_leaf(record[:cut]) is None


def test_the_serial_of_whatever_is_served(pair: tls.Pair) -> None:
    assert (serial_of(der(pair)) or "").isdecimal()
    assert serial_of(b"no certificate") is None


# -- the inquiries -------------------------------------------------------------------------------------------------


class Cluster:
    """A Store of one Service whose endpoints are what a test says."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.failure: Exception | None = None
        self.service: dict[str, Any] | None = a_service(HTTPS)

    async def read_service(self, namespace: str, name: str) -> dict[str, Any] | None:
        if self.failure is not None:
            raise self.failure
        return self.service

    async def list_endpoint_slices(self, namespace: str, service: str) -> list[dict[str, Any]]:
        return [a_slice(*self.addresses)]


class Servers:
    """What each address shows; how many are asked at once, and in which order."""

    def __init__(self) -> None:
        self.leaf = b"ours"
        self.old: set[str] = set()
        self.asked: list[str] = []
        self.now = self.most = 0

    async def __call__(self, address: str, port: int, server_name: str) -> bytes:
        self.asked.append(address)
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        return b"old" if address in self.old else self.leaf


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    found = Servers()
    monkeypatch.setattr(serving, "served_leaf", found)
    monkeypatch.setattr(serving, "FIRST", 0.0)
    monkeypatch.setattr(serving, "AGAIN", (0.0, 0.0))
    monkeypatch.setattr(serving, "EVERY", 0.01)
    monkeypatch.setattr(serving, "RATE", 1000)
    return found


QUESTION = a_question("web.shop.svc", fingerprint=sha256(b"ours").hexdigest())


def inquiries(cluster: Cluster, poked: list[Key], leads: Callable[[], bool] = lambda: True) -> Inquiries:
    store: Any = cluster
    return Inquiries(store=store, leads=leads, poke=poked.append, cluster_domain="cluster.local")


async def passed(predicate: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not predicate():  # noqa: ASYNC110 - what is waited for is no part of the test's own
            await asyncio.sleep(0.005)


async def test_what_is_served_everywhere_is_asked_once(servers: Servers) -> None:
    poked: list[Key] = []
    asking = inquiries(Cluster("10.0.0.1", "10.0.0.2"), poked)

    assert asking.want(KEY, QUESTION) is None
    await passed(lambda: poked)
    verdict = asking.want(KEY, QUESTION)
    await asyncio.sleep(0.05)

    assert verdict is not None
    assert verdict.status == "True"
    assert servers.asked == ["10.0.0.1", "10.0.0.2"]
    assert poked == [KEY]


async def test_what_is_not_is_asked_until_it_is_and_told_when_it_changes(servers: Servers) -> None:
    poked: list[Key] = []
    asking = inquiries(Cluster("10.0.0.1"), poked)
    servers.old = {"10.0.0.1"}

    asking.want(KEY, QUESTION)
    await passed(lambda: len(servers.asked) > 5)
    before, told = asking.want(KEY, QUESTION), len(poked)
    servers.old = set()
    await passed(lambda: len(poked) > told)
    after = asking.want(KEY, QUESTION)

    assert before is not None
    assert (before.reason, told) == (Reason.SERVING_OTHER, 1)
    assert after is not None
    assert after.status == "True"


async def test_another_question_replaces_the_first(servers: Servers) -> None:
    poked: list[Key] = []
    asking = inquiries(Cluster("10.0.0.1"), poked)
    asking.want(KEY, QUESTION)
    await passed(lambda: poked)

    renewed = a_question("web.shop.svc", fingerprint=OURS)

    assert asking.want(KEY, renewed) is None
    await passed(lambda: len(poked) > 1)
    verdict = asking.want(KEY, renewed)
    await asking.close()
    assert verdict is not None
    assert verdict.reason is Reason.SERVING_OTHER


async def test_what_is_spared_is_asked_no_more(servers: Servers) -> None:
    servers.old = {"10.0.0.1"}
    asking = inquiries(Cluster("10.0.0.1"), [])
    asking.want(KEY, QUESTION)
    await passed(lambda: servers.asked)

    asking.spare(KEY)
    asking.spare(KEY)
    count = len(servers.asked)
    await asyncio.sleep(0.05)

    assert len(servers.asked) == count


async def test_a_replica_that_does_not_lead_asks_nobody(servers: Servers) -> None:
    leading = False
    asking = inquiries(Cluster("10.0.0.1"), [], lambda: leading)
    asking.want(KEY, QUESTION)
    await asyncio.sleep(0.05)
    count = len(servers.asked)
    leading = True
    await passed(lambda: servers.asked)

    assert count == 0


async def test_an_api_server_that_does_not_answer_is_no_verdict(servers: Servers) -> None:
    poked: list[Key] = []
    cluster = Cluster("10.0.0.1")
    cluster.failure = Unavailable("no answer")
    asking = inquiries(cluster, poked)
    asking.want(KEY, QUESTION)
    await asyncio.sleep(0.05)

    assert asking.want(KEY, QUESTION) is None
    assert poked == []
    cluster.failure = None
    await passed(lambda: poked)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"failure": Forbidden("403")}, "restarts.verify", id="no rights"),
        pytest.param({"service": None}, "no Service web", id="no Service"),
        pytest.param({"service": {"spec": {"type": "ExternalName"}}}, "no Service web", id="ExternalName"),
    ],
)
async def test_what_cannot_be_asked_is_unknown_with_the_remedy(
    servers: Servers, change: dict[str, Any], words: str
) -> None:
    poked: list[Key] = []
    cluster = Cluster("10.0.0.1")
    for name, value in change.items():
        setattr(cluster, name, value)
    asking = inquiries(cluster, poked)

    asking.want(KEY, QUESTION)
    await passed(lambda: poked)
    verdict = asking.want(KEY, QUESTION)
    await asking.close()

    assert verdict is not None
    assert (verdict.status, verdict.reason) == ("Unknown", Reason.SERVING_UNKNOWN)
    assert words in verdict.message
    assert servers.asked == []


async def test_a_hundred_are_asked_ten_at_a_time_and_none_that_is_refused(servers: Servers) -> None:
    poked: list[Key] = []
    many = [str(ipaddress.ip_address("10.0.0.0") + n) for n in range(150)]
    asking = inquiries(Cluster(*many, "169.254.169.254"), poked)

    asking.want(KEY, QUESTION)
    await passed(lambda: poked)

    assert len(servers.asked) == 100
    assert servers.most == 10
    assert "169.254.169.254" not in servers.asked
