"""Does a node leave nothing on the machine, and does it say what it would need?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.node import cgroups, requirements
from tests.node.namespaces import Namespaces
from tests.node.node import Node
from tests.testbed.processes import until

_CRASHING = """
import os, signal, sys
from pathlib import Path
from tests.node.node import Node
node = Node(Path(sys.argv[1]))
node.start()
print(node.addresses.link, node.namespaces.cgroup, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def machine(pytestconfig: pytest.Config) -> None:
    """Only where a node can run."""
    if lacks := requirements.missing():
        pytest.skip(requirements.message(lacks))


def test_a_node_whose_test_run_is_killed_leaves_no_process_and_no_network(machine: None, tmp_path: Path) -> None:
    crashed = subprocess.run(
        [sys.executable, "-c", _CRASHING, str(tmp_path / "node")],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert crashed.returncode == -signal.SIGKILL, crashed.stderr
    link, cgroup = crashed.stdout.split()

    until(lambda: not _interface(link), 20, f"{link} gone")
    until(lambda: not _processes_of(tmp_path), 20, f"no process of {tmp_path}")
    until(lambda: _swept(cgroup), 20, f"{cgroup} swept, as the next node does")


def test_namespaces_that_are_closed_leave_nothing(machine: None, tmp_path: Path) -> None:
    before = _mounts()
    with Namespaces(tmp_path) as opened:
        link, cgroup = opened.addresses.link, opened.cgroup
        assert _interface(link)
        opened.process("sleeper", ["/bin/sleep", "60"]).start()

    assert not _interface(link)
    assert cgroup not in {group.name for group in cgroups.left()}
    assert _mounts() == before
    until(lambda: not _processes_of(tmp_path), 20, "no process left")


def test_a_node_leaves_settings_of_the_machine_alone(node: Node) -> None:
    name = "kernel/panic_on_oops"
    outside = Path("/proc/sys", name).read_text()
    inside = node.namespaces.run("/bin/cat", f"/proc/sys/{name}")

    assert inside.strip() == "1"  # what the kubelet wants
    assert outside == Path("/proc/sys", name).read_text()
    assert not Path("/var/lib/kubelet").exists()


def test_whoever_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65532)

    assert "missing: root" in requirements.message(requirements.missing())


def _interface(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _mounts() -> list[str]:
    return sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _swept(cgroup: str) -> bool:
    cgroups.sweep()
    return cgroup not in {group.name for group in cgroups.left()}


def _processes_of(folder: Path) -> list[str]:
    """The command lines that name the folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words:
            found.append(words)
    return found
