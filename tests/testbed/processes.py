"""How does the testbed start, stop and wait for programs, so that none outlives the test run?

Every child has a log file and a process group of its own (a Ctrl-C in the terminal reaches only the test
run) and asks the kernel to be killed when its parent dies, so nothing is left behind even after ``kill -9``.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

POLL = 0.05
TAIL = 2000
# Below every usual range of ephemeral ports, so that a restart finds its port free; test runs side by side share none.
_RUN = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0) % 4
_PORTS = range(20000 + 2500 * _RUN, 22500 + 2500 * _RUN)

# PR_SET_PDEATHSIG and SIGKILL, set by a short-lived Python: between fork and exec it would be unsafe beside threads.
_LEASH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
# The kernel's parent-death signal follows the *thread* that forked: this one lives as long as the interpreter.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")
_given_ports: set[int] = set()
_ports_lock = threading.Lock()


class NotInTime(AssertionError):
    """What was waited for did not happen; the message has the last value seen and the end of the log."""


def until(
    predicate: Callable[[], T],
    timeout: float,
    what: str,
    *,
    log: Callable[[], str] | None = None,
    ignoring: tuple[type[Exception], ...] = (),
    pause: float = POLL,
) -> T:
    """The first truthy answer of ``predicate``, asked every ``pause`` seconds; NotInTime after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        last: object
        try:
            last = value = predicate()
            if value:
                return value
        except ignoring as failure:
            last = failure
        if time.monotonic() > deadline:
            end = f"\nend of the log:\n{log()[-TAIL:]}" if log else ""
            raise NotInTime(f"{what}: not within {timeout:g} s; last seen: {last!r}{end}")
        time.sleep(pause)


def free_port() -> int:
    """A loopback port that nobody listens on and that this run has not handed out before."""
    with _ports_lock:
        while True:
            port = random.choice(_PORTS)
            if port not in _given_ports and _can_bind(port):
                _given_ports.add(port)
                return port


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    """Whether a connection to the loopback port is accepted."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


class Process:
    """One child. ``detached`` children outlive their parent, for ``make up`` alone."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        detached: bool = False,
    ) -> None:
        """Describe the child; nothing runs before ``start``."""
        self.name = name
        self.command = list(command)
        self.log = log
        self.environment = environment
        self.detached = detached
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output is added to the log."""
        if self.running:
            raise RuntimeError(f"{self.name} is running already")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._child = _starter.submit(self._spawn).result()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self.command if self.detached else _on_a_leash(self.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if self.environment is None else dict(self.environment),
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """Its process id, also after it has ended."""
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """What it ended with; None while it runs."""
        return self._child.poll() if self._child else None

    def stop(self, timeout: float = 10) -> int | None:
        """End it politely, after ``timeout`` seconds by force; its exit code."""
        if self._child is None:
            return None
        if self.running:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)
            try:
                self._child.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.exit_code

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._child and self.running:
            self.signal(signal.SIGKILL)
            self._child.wait(10)

    def pause(self) -> None:
        """Freeze it: its sockets stay open and say nothing. Returns once all of its threads stand."""
        self.signal(signal.SIGSTOP)
        assert self._child is not None  # it has got a signal
        os.waitid(os.P_PID, self._child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it run on after ``pause``."""
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send it one signal."""
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        self._child.send_signal(number)

    def log_size(self) -> int:
        """How many bytes it has printed: a mark for ``log_text``."""
        return self.log.stat().st_size if self.log.exists() else 0

    def log_text(self, since: int = 0) -> str:
        """What it has printed, all or from a mark on."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")

    def until(
        self,
        predicate: Callable[[], T],
        timeout: float,
        what: str,
        *,
        ignoring: tuple[type[Exception], ...] = (),
    ) -> T:
        """As the function ``until``, but ends at once when the child does."""

        def checked() -> T:
            if not self.running:
                raise NotInTime(f"{what}: {self.name} ended with exit code {self.exit_code}\n{self.log_text()[-TAIL:]}")
            return predicate()

        return until(checked, timeout, what, log=self.log_text, ignoring=ignoring)


def _on_a_leash(command: list[str]) -> list[str]:
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command]
