"""Guards: what is called was looked at, and what is not allowed is never connected to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import trustme

from certrenewal import outbound
from certrenewal.domain.hooks import Method
from certrenewal.domain.hosts import parse_entry
from certrenewal.domain.request import Request
from certrenewal.outbound import Denied, Outbound, Trust, Undelivered

TIMEOUT = timedelta(seconds=20)
AUTHORITY = trustme.CA()
TRUST = Trust(roots=AUTHORITY.cert_pem.bytes())


class Server:
    """Counts connections, and answers each request with a status."""

    def __init__(self, status: str = "200 OK") -> None:
        self.status = status
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 {self.status}\r\nSet-Cookie: a=b\r\nContent-Length: 9\r\n\r\nhunter2hu".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost", "hook.test").configure_cert(context)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield server


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to."""
    known: dict[str, list[str]] = {}

    def lookup(host: str, port: int) -> list[str]:
        if host not in known:
            raise OSError("no such name")
        return known[host]

    monkeypatch.setattr(outbound, "_lookup", lookup)
    return known


def a_request(port: int, host: str = "hook.test", **changes: object) -> Request:
    facts: dict[str, object] = {
        "method": Method.GET,
        "host": host,
        "port": port,
        "url": f"https://{host}:{port}/ping?a=%20b",
        "headers": (("X-Token", "hunter2"),),
        "body": None,
    }
    return Request(**{**facts, **changes})  # type: ignore[arg-type]


def an_outbound(*entries: str, api_server: tuple[str, ...] = ()) -> Outbound:
    return Outbound(tuple(parse_entry(entry) for entry in entries), api_server=api_server)


async def test_a_listed_host_at_a_listed_address_is_asked_just_as_said(addresses: dict[str, list[str]]) -> None:
    addresses["hook.test"] = ["127.0.0.1"]
    async with serving(Server()) as server:
        status = await an_outbound("hook.test", "127.0.0.1").send(a_request(server.port), TRUST, TIMEOUT)

    head = server.requests[0].decode()
    assert status == 200
    assert head.startswith("GET /ping?a=%20b HTTP/1.1\r\n")
    assert f"Host: hook.test:{server.port}\r\n" in head
    assert "X-Token: hunter2\r\n" in head


@pytest.mark.parametrize(
    ("entries", "resolved", "named"),
    [
        ((), ["127.0.0.1"], "does not list hook.test: add it"),
        (("hook.test",), ["127.0.0.1"], "hook.test resolves to 127.0.0.1, a loopback address: add 127.0.0.1"),
        (("hook.test",), ["::ffff:127.0.0.1"], "a loopback address: add 127.0.0.1"),
        (("hook.test:1",), ["127.0.0.1"], "does not list hook.test:"),
        (("127.0.0.1",), ["127.0.0.1"], "does not list hook.test: add it"),
    ],
)
async def test_what_is_not_listed_is_not_connected_to(
    addresses: dict[str, list[str]], entries: tuple[str, ...], resolved: list[str], named: str
) -> None:
    addresses["hook.test"] = resolved
    async with serving(Server()) as server:
        with pytest.raises(Denied) as denial:
            await an_outbound(*entries).send(a_request(server.port), TRUST, TIMEOUT)

    assert named in str(denial.value)
    assert "hooks.allowedHosts" in str(denial.value)
    assert server.connections == 0


async def test_the_api_server_is_not_called_by_any_of_its_names(addresses: dict[str, list[str]]) -> None:
    addresses |= {"hook.test": ["10.9.9.9"], "api.internal": ["10.9.9.9"]}
    with pytest.raises(Denied, match=r"10\.9\.9\.9, the API server's address"):
        await an_outbound("hook.test", api_server=("api.internal", "10.96.0.1")).send(a_request(443), TRUST, TIMEOUT)


async def test_a_name_is_resolved_once_and_the_connection_goes_to_what_was_checked(
    addresses: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves to a good address first, and to a near one when the connection is made."""
    answers = [["127.0.0.9"], ["127.0.0.1"]]
    monkeypatch.setattr(outbound, "_lookup", lambda host, port: answers.pop(0))
    async with serving(Server()) as server:
        with pytest.raises(Undelivered):  # nobody listens there
            await an_outbound("hook.test", "127.0.0.9").send(a_request(server.port), TRUST, TIMEOUT)

    assert server.connections == 0
    assert len(answers) == 1


async def test_of_several_addresses_only_the_allowed_are_used(addresses: dict[str, list[str]]) -> None:
    addresses["hook.test"] = ["127.0.0.9", "127.0.0.1"]
    async with serving(Server()) as server:
        assert await an_outbound("hook.test", "127.0.0.1").send(a_request(server.port), TRUST, TIMEOUT) == 200


async def test_a_redirect_is_an_answer_like_any_other(addresses: dict[str, list[str]]) -> None:
    addresses["hook.test"] = ["127.0.0.1"]
    async with serving(Server("302 Found\r\nLocation: /elsewhere")) as server:
        assert await an_outbound("hook.test", "127.0.0.1").send(a_request(server.port), TRUST, TIMEOUT) == 302
        assert server.connections == 1


async def test_no_proxy_of_the_environment_is_used(
    addresses: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses["hook.test"] = ["127.0.0.1"]
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with serving(Server()) as server:
        assert await an_outbound("hook.test", "127.0.0.1").send(a_request(server.port), TRUST, TIMEOUT) == 200


@pytest.mark.parametrize(
    ("status", "trust", "named"),
    [
        ("200 OK", Trust(roots=trustme.CA().cert_pem.bytes()), "cannot be verified"),
        ("200 OK", Trust(), "cannot be verified"),
        ("hunter2", TRUST, "gave no answer"),
    ],
)
async def test_a_failure_is_told_without_what_was_sent(
    addresses: dict[str, list[str]], status: str, trust: Trust, named: str
) -> None:
    addresses["hook.test"] = ["127.0.0.1"]
    async with serving(Server(status)) as server:
        with pytest.raises(Undelivered) as failure:
            await an_outbound("hook.test", "127.0.0.1").send(a_request(server.port), trust, TIMEOUT)

    assert named in str(failure.value)
    assert "hunter2" not in str(failure.value)
    assert failure.value.__cause__ is None


async def test_a_name_that_does_not_exist_is_named(addresses: dict[str, list[str]]) -> None:
    with pytest.raises(Undelivered, match=r"the name hook\.test cannot be resolved"):
        await an_outbound("hook.test").send(a_request(443), TRUST, TIMEOUT)


async def test_two_readings_of_one_url_are_none(addresses: dict[str, list[str]]) -> None:
    addresses["hook.test"] = ["127.0.0.1"]
    async with serving(Server()) as server:
        request = a_request(server.port, url=f"https://localhost:{server.port}/")
        with pytest.raises(Undelivered):
            await an_outbound("hook.test", "127.0.0.1").send(request, TRUST, TIMEOUT)

    assert server.connections == 0


async def test_an_answer_that_does_not_come_is_not_waited_for(addresses: dict[str, list[str]]) -> None:
    addresses["hook.test"] = ["127.0.0.1"]
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(Undelivered, match=r"did not answer within 0\.1"):
            await an_outbound("hook.test", "127.0.0.1").send(a_request(port), TRUST, timedelta(seconds=0.1))
        gone.set()


def test_the_pair_is_in_no_repr(tmp_path: Path) -> None:
    assert "hunter2" not in repr(Trust(pair=b"hunter2"))
