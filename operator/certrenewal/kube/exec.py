"""How is a command run in a container: over a WebSocket of the API server, which the kubelet answers.

Each message of the remote command protocol is one byte for the channel and then its data: what the command prints comes
on two channels, and how it ended on a third, as the Status object that the API uses elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from certrenewal import metrics
from certrenewal.kube.client import Configuration, authorization, error_of, open_session
from certrenewal.kube.errors import Rejected, Unavailable

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
HANDSHAKE = 10.0  # seconds, until the kubelet has begun
LAST_WORDS = 2.0  # seconds for output that comes after the end
MOST_OUTPUT = 256 * 1024  # bytes of each channel that are kept

_STDOUT, _STDERR, _STATUS = 1, 2, 3
_NOT_EXECUTABLE = (126, 127)  # where a shell or runtime says by its exit code that there is no such program


class CommandFailed(Rejected):
    """A command that ended badly, not at all, or was never run. The first line of its message is ours alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended and what it printed."""

    exit_code: int | None  # None: it was not run; the message says why
    message: str = ""
    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)

    @property
    def missing(self) -> bool:
        """Whether the container has no such program."""
        if self.exit_code is None:
            return "executable file" in self.message or "no such file or directory" in self.message.lower()
        return self.exit_code in _NOT_EXECUTABLE


@dataclass(slots=True)
class Frames:
    """What has come of a command so far."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    status: bytearray = field(default_factory=bytearray)

    def take(self, frame: bytes) -> bool:
        """One message, and whether it says how the command ended. Unknown channels carry nothing for us."""
        if not frame:
            return False
        channel = {_STDOUT: self.stdout, _STDERR: self.stderr, _STATUS: self.status}.get(frame[0], bytearray())
        channel += frame[1 : 1 + MOST_OUTPUT - len(channel)]
        return frame[0] == _STATUS and len(frame) > 1

    def outcome(self) -> Outcome | None:
        """How it ended, None as long as nobody has said so."""
        try:
            exit_code, message = _end(json.loads(self.status))
        except (ValueError, AttributeError):
            return None
        return Outcome(exit_code=exit_code, message=message, stdout=bytes(self.stdout), stderr=bytes(self.stderr))


def _end(status: dict[str, Any]) -> tuple[int | None, str]:
    message = str(status.get("message") or "")
    if status.get("status") == "Success":
        return 0, message
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            with contextlib.suppress(ValueError):
                return int(cause.get("message", "")), message
    return None, message


class Executor:
    """Runs commands in containers, over connections of its own: a command that takes long must not hold up others."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End the session."""
        if self._session is not None:
            await self._session.close()

    async def run(self, namespace: str, pod: str, container: str, command: Sequence[str], *, limit: float) -> Outcome:
        """Run a command and wait for its end, ``limit`` seconds at most; CommandFailed where it takes longer."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec"
        code = "error"
        try:
            async with asyncio.timeout(HANDSHAKE):
                socket = await self._open(path, container, command)
            code = "101"
        except TimeoutError:
            raise Unavailable(f"GET {path}: no answer in time") from None
        except aiohttp.WSServerHandshakeError as refusal:
            code = str(refusal.status)
            raise error_of("GET", path, refusal.status, await self._said(path, container, command)) from None
        except (aiohttp.ClientError, OSError) as failure:
            raise Unavailable(f"GET {path}: {type(failure).__name__}") from None
        finally:
            metrics.API_REQUESTS.labels(method="GET", resource="pods/exec", code=code).inc()
        return await self._follow(socket, path, limit)

    async def _open(self, path: str, container: str, command: Sequence[str]) -> aiohttp.ClientWebSocketResponse[bool]:
        return await self._open_session().ws_connect(
            self._url(path),
            params=_query(container, command),
            protocols=PROTOCOLS,
            headers=await authorization(self._configuration),
            autoping=True,
        )

    async def _follow(self, socket: aiohttp.ClientWebSocketResponse[bool], path: str, limit: float) -> Outcome:
        frames = Frames()
        try:
            await _read(socket, frames, limit)
        except TimeoutError:
            if not frames.status:
                raise CommandFailed(f"it did not end within {limit:g} s") from None
        except (aiohttp.ClientError, OSError) as failure:
            raise Unavailable(f"GET {path}: {type(failure).__name__}") from None
        finally:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await socket.close()
        outcome = frames.outcome()
        if outcome is None:
            raise Unavailable(f"GET {path}: cut off before the command ended")
        return outcome

    async def _said(self, path: str, container: str, command: Sequence[str]) -> bytes:
        """Why a WebSocket was refused, which aiohttp does not read: the same request as a plain one runs nothing."""
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(HANDSHAKE):
                answer = await self._open_session().get(
                    self._url(path),
                    params=_query(container, command),
                    headers=await authorization(self._configuration),
                )
                text = await answer.read()
                return b"" if b"Upgrade request required" in text else text
        return b""

    def _url(self, path: str) -> str:
        return str(self._configuration.host) + path

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = open_session(self._configuration, limit=100)
        return self._session


async def _read(socket: aiohttp.ClientWebSocketResponse[bool], frames: Frames, limit: float) -> None:
    """Read until the other side closes, or soon after it has said how the command ended."""
    async with asyncio.timeout(limit) as deadline:
        async for message in socket:
            if message.type not in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                continue
            data = message.data
            if frames.take(data.encode() if isinstance(data, str) else data):
                # The channels are copied side by side: output may still be on its way.
                deadline.reschedule(asyncio.get_running_loop().time() + LAST_WORDS)


def _query(container: str, command: Sequence[str]) -> list[tuple[str, str]]:
    return [*(("command", word) for word in command), ("container", container), ("stdout", "true"), ("stderr", "true")]
