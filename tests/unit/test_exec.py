"""Guards: the remote command protocol is spoken as the API server does, and every way to end is told from the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.aio.client import Configuration

from certrenewal.kube import exec as kube_exec
from certrenewal.kube.errors import NotFound, Rejected, Unavailable
from certrenewal.kube.exec import CommandFailed, Executor, Frames, Outcome

SUCCESS = {"metadata": {}, "status": "Success"}


def ended(code: int) -> dict[str, Any]:
    """The Status of a command that ended with another exit code than 0."""
    return {
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def never_ran(message: str) -> dict[str, Any]:
    """The Status of a command that the runtime could not start."""
    return {
        "status": "Failure",
        "message": message,
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }


def frame(channel: int, content: str | bytes | dict[str, Any]) -> bytes:
    if isinstance(content, dict):
        content = json.dumps(content)
    return bytes([channel]) + (content.encode() if isinstance(content, str) else content)


# -- frames ------------------------------------------------------------------------------------------------------------


def outcome_of(*frames: bytes) -> Outcome | None:
    taken = Frames()
    for one in frames:
        taken.take(one)
    return taken.outcome()


def test_output_is_put_together_by_channel() -> None:
    outcome = outcome_of(
        frame(1, ""), frame(2, ""), frame(3, ""), frame(1, "out"), frame(2, "err"), frame(1, "put"), frame(3, SUCCESS)
    )

    assert outcome == Outcome(exit_code=0, stdout=b"output", stderr=b"err")


@pytest.mark.parametrize(
    ("status", "exit_code", "missing"),
    [
        pytest.param(SUCCESS, 0, False, id="success"),
        pytest.param(ended(3), 3, False, id="another exit code"),
        pytest.param(ended(127), 127, True, id="a shell without the program"),
        pytest.param(ended(126), 126, True, id="no program but a file"),
        pytest.param(
            never_ran('OCI runtime exec failed: exec: "cat": executable file not found in $PATH: unknown'), None, True, id="runc"
        ),
        pytest.param(never_ran("executable file `cat` not found in $PATH: No such file or directory"), None, True, id="crun"),
        pytest.param(never_ran('exec: "/bin/cat": stat /bin/cat: no such file or directory'), None, True, id="absolute"),
        pytest.param(never_ran("container is being stopped"), None, False, id="something else"),
        pytest.param({"status": "Failure", "details": None}, None, False, id="without details"),
        pytest.param({"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "?"}]}}, None, False, id="no number"),
    ],
)  # fmt: skip
def test_how_a_command_ended(status: dict[str, Any], exit_code: int | None, missing: bool) -> None:
    outcome = outcome_of(frame(3, status))

    assert outcome is not None
    assert (outcome.exit_code, outcome.missing) == (exit_code, missing)


def test_a_status_in_two_frames_is_one() -> None:
    text = json.dumps(ended(2))

    assert outcome_of(frame(3, text[:20])) is None
    assert outcome_of(frame(3, text[:20]), frame(3, text[20:])) == outcome_of(frame(3, text))


@pytest.mark.parametrize(
    "frames", [[], [b""], [frame(1, "out")], [frame(3, "")], [frame(3, "no JSON")], [frame(3, "[]")]]
)
def test_without_a_status_nothing_is_known(frames: list[bytes]) -> None:
    assert outcome_of(*frames) is None


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_no_frame_breaks_the_reader(frames: list[bytes]) -> None:
    outcome_of(*frames)


def test_output_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_exec, "MOST_OUTPUT", 10)

    outcome = outcome_of(*[frame(1, "0123456")] * 5, frame(3, "{}"))

    assert outcome is not None
    assert outcome.stdout == b"0123456012"


def test_what_a_command_printed_stays_out_of_the_repr() -> None:
    assert "secret" not in repr(Outcome(exit_code=1, stdout=b"secret", stderr=b"secret"))


# -- on the wire -------------------------------------------------------------------------------------------------------

Answer = Callable[[web.WebSocketResponse], Awaitable[None]]


@dataclass
class Server:
    """An API server that speaks the protocol; ``answer`` plays the kubelet."""

    answer: Answer
    protocols: tuple[str, ...] = ("v5.channel.k8s.io", "v4.channel.k8s.io")
    refusal: tuple[int, str] | None = None
    requests: list[web.Request] = field(default_factory=list)
    spoken: list[str | None] = field(default_factory=list)
    port: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.refusal is not None:
            return web.json_response({"message": self.refusal[1]}, status=self.refusal[0])
        socket = web.WebSocketResponse(protocols=self.protocols)
        await socket.prepare(request)
        self.spoken.append(socket.ws_protocol)
        await self.answer(socket)
        await socket.close()
        return socket


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Server], Awaitable[Executor]]]:
    runners: list[web.AppRunner] = []
    executors: list[Executor] = []

    async def start(server: Server) -> Executor:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/shop/pods/web-1/exec", server.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.port = runner.addresses[0][1]
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{server.port}"
        configuration.api_key["BearerToken"] = "Bearer t0ken"
        executors.append(Executor(configuration))
        return executors[-1]

    yield start
    for executor in executors:
        await executor.close()
    for runner in runners:
        await runner.cleanup()


Serve = Callable[[Server], Awaitable[Executor]]


def says(*frames: bytes) -> Answer:
    async def answer(socket: web.WebSocketResponse) -> None:
        for one in frames:
            await socket.send_bytes(one)

    return answer


async def run(executor: Executor, *command: str, limit: float = 5) -> Outcome:
    return await executor.run("shop", "web-1", "main", command or ("cat", "/certs/tls.crt"), limit=limit)


async def test_a_command_runs_and_its_end_is_told(serve: Serve) -> None:
    server = Server(says(frame(1, "certificate"), frame(2, "careful"), frame(3, ended(3))))
    executor = await serve(server)

    outcome = await run(executor, "sh", "-c", "a & b")

    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (3, b"certificate", b"careful")
    (request,) = server.requests
    assert request.query.getall("command") == ["sh", "-c", "a & b"]
    assert {key: request.query[key] for key in ("container", "stdout", "stderr")} == {
        "container": "main",
        "stdout": "true",
        "stderr": "true",
    }
    assert "stdin" not in request.query
    assert request.headers["Authorization"] == "Bearer t0ken"
    assert server.spoken == ["v5.channel.k8s.io"]


async def test_an_older_api_server_is_understood(serve: Serve) -> None:
    server = Server(says(frame(3, SUCCESS)), protocols=("v4.channel.k8s.io",))

    assert (await run(await serve(server))).exit_code == 0
    assert server.spoken == ["v4.channel.k8s.io"]


async def test_output_that_comes_after_the_end_counts(serve: Serve) -> None:
    server = Server(says(frame(3, SUCCESS), frame(1, "late")))

    assert (await run(await serve(server))).stdout == b"late"


async def test_a_server_that_does_not_close_after_the_end_is_left(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_exec, "LAST_WORDS", 0.05)

    async def answer(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(frame(3, SUCCESS))
        await socket.receive()

    assert (await run(await serve(Server(answer)))).exit_code == 0


async def test_a_command_that_takes_too_long_failed(serve: Serve) -> None:
    async def answer(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(frame(1, "still at it"))
        await socket.receive()

    with pytest.raises(CommandFailed, match=r"did not end within 0\.1 s"):
        await run(await serve(Server(answer)), limit=0.1)


async def test_a_connection_that_ends_before_the_command_says_nothing(serve: Serve) -> None:
    with pytest.raises(Unavailable, match="cut off"):
        await run(await serve(Server(says(frame(1, "half")))))


@pytest.mark.parametrize(
    ("status", "kind"), [(403, Rejected), (400, Rejected), (404, NotFound), (500, Unavailable), (503, Unavailable)]
)
async def test_a_refusal_is_told_with_the_servers_words(serve: Serve, status: int, kind: type[Exception]) -> None:
    server = Server(says(), refusal=(status, 'pods "web-1" is forbidden'))

    with pytest.raises(kind, match=rf'GET /api/v1/namespaces/shop/pods/web-1/exec: {status} pods "web-1" is forbidden'):
        await run(await serve(server), "kill", "-s", "HUP", "1")


async def test_a_server_that_is_down_is_unavailable(serve: Serve, unused_tcp_port: int) -> None:
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{unused_tcp_port}"
    executor = Executor(configuration)

    with pytest.raises(Unavailable, match="ClientConnectorError"):
        await run(executor)
    await executor.close()


async def test_a_kubelet_that_does_not_answer_is_not_waited_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_exec, "HANDSHAKE", 0.05)
    server = Server(says())
    executor = await serve(server)

    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(1)
        return web.Response()

    monkeypatch.setattr(server, "handle", hang)
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/shop/pods/web-1/exec", hang)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    executor._configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"

    with pytest.raises(Unavailable, match="no answer in time"):
        await run(executor)
    await runner.cleanup()
