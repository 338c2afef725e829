"""How does a person try certrenewal: ``demo`` tells one renewal as a story, ``up`` leaves everything running.

Run from the checkout as ``python -m tests.testbed.session demo|up|down``. ``up`` records each process with its
start time in one file, so that ``down`` ends exactly those and never a stranger that got the same number.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from tests.testbed import tools
from tests.testbed.demo import demo
from tests.testbed.processes import NotInTime, Process, until
from tests.testbed.sandbox import SHOP, Sandbox, require_programs, sandbox

_RECORD = "processes.json"
_EXPECTED = (RuntimeError, AssertionError, LookupError, OSError, subprocess.SubprocessError)


def main(arguments: Sequence[str]) -> int:
    """Run one of the three; the exit code."""
    return run("tests.testbed.session", {"demo": demo, "up": up, "down": down}, arguments)


def run(module: str, commands: Mapping[str, Callable[[], None]], arguments: Sequence[str]) -> int:
    """Run the command that the arguments name, as far as it goes; the exit code."""
    if len(arguments) != 1 or arguments[0] not in commands:
        print(f"usage: python -m {module} {'|'.join(commands)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        commands[arguments[0]]()
    except KeyboardInterrupt:
        print("\nInterrupted; what was started has been ended.", file=sys.stderr)
        return 130
    except _EXPECTED as failure:
        print(f"\nFAILED: {failure}", file=sys.stderr)
        return 1
    return 0


def up() -> None:
    """Start everything in the background and say how to use it."""
    folder = _folder()
    if any(is_alive(pid, started) for pid, started in _recorded(folder)):
        raise RuntimeError(f"already up in {folder}: `make down` first")
    require_programs()
    shutil.rmtree(folder, ignore_errors=True)
    with sandbox(folder, detached=True, note=lambda processes: _record(folder, processes)) as parts:
        link_programs(folder / "bin")
        _explain(folder, parts)


def down() -> None:
    """End what ``up`` started and remove its folder."""
    folder = _folder()
    recorded = _recorded(folder)
    if not recorded:
        print("Nothing is up.")
        return
    for pid, started in reversed(recorded):
        end(pid, started)
    shutil.rmtree(folder)
    print(f"Ended {len(recorded)} processes and removed {folder}.")


def _folder() -> Path:
    return Path(os.environ.get("CERTRENEWAL_UP") or tools.cache() / "up").absolute()


def _record(folder: Path, processes: Sequence[Process]) -> None:
    entries = [{"name": found.name, "pid": found.pid, "started": started_at(found.pid)} for found in processes]
    (folder / _RECORD).write_text(json.dumps(entries, indent=1))


def _recorded(folder: Path) -> list[tuple[int, str]]:
    file = folder / _RECORD
    if not file.exists():
        return []
    return [(entry["pid"], entry["started"]) for entry in json.loads(file.read_text())]


def started_at(pid: int) -> str:
    """When the process started, as the system tells it; empty where there is none."""
    statistics = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = statistics.read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] == "Z" else fields[19]
    return subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], check=False, capture_output=True, text=True
    ).stdout.strip()


def is_alive(pid: int, started: str) -> bool:
    """Whether just this process still runs."""
    return bool(started) and started_at(pid) == started


def end(pid: int, started: str) -> None:
    """End it, by force after a while."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_alive(pid, started):
            return
        os.kill(pid, number)
        try:
            until(lambda: not is_alive(pid, started), 5, f"process {pid} ended")
        except NotInTime:
            if number == signal.SIGKILL:
                raise


def link_programs(folder: Path) -> None:
    """Put what a person needs to look around into a folder of its own."""
    folder.mkdir()
    for name in ("kubectl", "helm", "step"):
        (folder / name).symlink_to(tools.path(name))


def _explain(folder: Path, parts: Sandbox) -> None:
    print(
        f"""
Everything runs in the background; `make down` ends it. To look around:

  export KUBECONFIG={parts.plane.kubeconfig} PATH={folder / "bin"}:$PATH

  kubectl get certauthorities
  kubectl create secret generic web-tls -n {SHOP}
  kubectl annotate secret web-tls -n {SHOP} certrenewal.dev/names=www.{SHOP}.example.com certrenewal.dev/renew=true
  kubectl get certrenewals -n {SHOP} -w

The operator's log: {parts.operator.process.log}"""
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
