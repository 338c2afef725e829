"""Where does a node live: in namespaces of its own, of which nothing is left once their first process has ended.

That process is a child of ``unshare``, which the kernel ends with the test run; with it end all processes inside,
their mounts and the network. Files that the node writes lie on memory file systems in there.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.node import cgroups, programs
from tests.testbed.processes import Process, until

_SPACES = ("-m", "-n", "-p", "-u", "-i")
_SETUP = Path(__file__).with_name("inside.sh")
_LINK = "certrenewal"
_SLOTS = range(200, 216)


class NoRoom(RuntimeError):
    """No free range of addresses is left on this machine."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of one node: 10.SLOT.0.0/16, so that several may run side by side."""

    slot: int

    @property
    def link(self) -> str:
        """The host's network interface that leads to the node."""
        return f"{_LINK}{self.slot}"

    @property
    def host(self) -> str:
        """The machine, as the node sees it."""
        return f"10.{self.slot}.0.1"

    @property
    def node(self) -> str:
        """The node, as the machine and pods see it."""
        return f"10.{self.slot}.0.2"

    @property
    def pods(self) -> str:
        """The range of pods."""
        return f"10.{self.slot}.64.0/18"

    @property
    def services(self) -> str:
        """The range of Services."""
        return f"10.{self.slot}.128.0/20"

    @property
    def apiserver(self) -> str:
        """The first address of the Services: ``kubernetes.default.svc``."""
        return str(ipaddress.ip_network(self.services)[1])


class Namespaces:
    """One set of namespaces with everything that they leave on the machine: a network interface, control groups."""

    def __init__(self, folder: Path, *, detached: bool = False) -> None:
        """Nothing is made before ``open``."""
        self.folder = folder
        self.addresses = Addresses(_SLOTS.start)
        self.cgroup = ""
        self.init = Process(
            "namespaces",
            ["unshare", *_SPACES, "--fork", "--kill-child", "--mount-proc", programs.path("pause")],
            log=folder / "logs" / "namespaces.log",
            detached=detached,
        )
        self._detached = detached
        self._first = 0
        self._tenants: list[Process] = []

    def __enter__(self) -> Self:
        """Open."""
        self.open()
        return self

    def __exit__(self, *failure: object) -> None:
        """Close."""
        self.close()

    def open(self) -> None:
        """Make the namespaces, with a way in."""
        cgroups.sweep()
        self.init.start()
        try:
            self._first = self.init.until(lambda: _only_child(self.init.pid), 10, "namespaces made")
            self.init.until(self._is_settled, 10, "first process running")
            self.cgroup = cgroups.create(self.init.pid)
            self.addresses = self._connect()
            self.run("/bin/sh", str(_SETUP), self.addresses.node)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything inside."""
        self.init.kill()
        for tenant in self._tenants:
            tenant.kill()
        if self._first:
            until(lambda: not Path(f"/proc/{self._first}").exists(), 20, "everything in the namespaces ended")
        if self.cgroup:
            cgroups.remove(self.cgroup)

    def command(self, *command: str) -> list[str]:
        """The command, to be run inside."""
        return ["nsenter", "-t", str(self._first), *_SPACES, "--", *command]

    def run(self, *command: str, stdin: bytes | None = None) -> str:
        """What a command prints that is run inside."""
        return _run(*self.command(*command), stdin=stdin)

    def process(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
        """A program that runs inside, with its log outside."""
        made = _Inside(
            name,
            self.command(*command),
            log=self.folder / "logs" / f"{name}.log",
            environment=environment,
            detached=self._detached,
        )
        self._tenants.append(made)
        return made

    def _is_settled(self) -> bool:
        return Path(f"/proc/{self._first}/cmdline").read_bytes().startswith(programs.path("pause").encode())

    def _connect(self) -> Addresses:
        for slot in _SLOTS:
            found = Addresses(slot)
            if _is_free(found) and _made_link(found.link, self._first):
                _run("ip", "address", "add", f"{found.host}/30", "dev", found.link)
                _run("ip", "link", "set", found.link, "up")
                for reached in (found.pods, found.services):
                    _run("ip", "route", "add", reached, "via", found.node)
                return found
        raise NoRoom(f"all of 10.{_SLOTS[0]}.0.0/16 to 10.{_SLOTS[-1]}.0.0/16 are in use on this machine")


class _Inside(Process):
    """A program behind ``nsenter``: signals are meant for the program itself."""

    def signal(self, number: int) -> None:
        inner = _only_child(self.pid)
        if not inner:
            super().signal(number)
            return
        with contextlib.suppress(ProcessLookupError):  # it ends by itself just now
            os.kill(inner, number)


def _is_free(addresses: Addresses) -> bool:
    routes = json.loads(_run("ip", "-json", "route", "show", "to", "match", addresses.node) or "[]")
    return all(route["dst"] == "default" for route in routes)


def _made_link(name: str, pid: int) -> bool:
    """Whether the pair of interfaces could be made: not where another run was faster."""
    pair = ["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(pid)]
    return subprocess.run(pair, check=False, capture_output=True).returncode == 0


def _only_child(pid: int) -> int:
    """The child of a process, 0 where it has none."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if children else 0


def _run(*command: str, stdin: bytes | None = None) -> str:
    outcome = subprocess.run(command, input=stdin, check=False, capture_output=True, timeout=300)
    if outcome.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {outcome.stderr.decode().strip()}")
    return outcome.stdout.decode()
