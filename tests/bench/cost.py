"""What did a stretch of work cost: CPU and memory of each process, and requests to the API server?"""

from __future__ import annotations

import datetime
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.testbed.api import Manifest
from tests.testbed.controlplane import ControlPlane, Request
from tests.testbed.processes import until

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(pid: int) -> tuple[float, float]:
    """Resident memory of a process now and at its peak, in MB."""
    lines = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Vm")
    )
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["VmHWM"].split()[0]) / 1024


@dataclass(slots=True)
class Meter:
    """Measures from its beginning to ``stop``."""

    plane: ControlPlane
    pids: Mapping[str, int]
    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    requests: Counter[Request] = field(default_factory=Counter)
    _started: float = 0.0

    def start(self) -> Self:
        """Begin."""
        self.requests = self.plane.request_counts()
        self.cpu = {name: cpu_seconds(pid) for name, pid in self.pids.items()}
        self._started = time.monotonic()
        return self

    def stop(self) -> Self:
        """End; the figures are those between."""
        self.seconds = time.monotonic() - self._started
        self.cpu = {name: cpu_seconds(pid) - self.cpu[name] for name, pid in self.pids.items()}
        self.requests = self.plane.request_counts() - self.requests
        return self


class Records:
    """The API server's audit records of one account, from now on, each once; only those about one namespace, if asked."""

    def __init__(self, plane: ControlPlane, user: str, namespace: str = "") -> None:
        self._file = plane.folder / "audit.log"
        self._marks = (f'"username":"{user}"', f'"namespace":"{namespace}"' if namespace else "")
        self._position = self._file.stat().st_size
        self._unread: list[Manifest] = []

    def new(self) -> list[Manifest]:
        """Those that came since the last call."""
        with self._file.open("rb") as log:
            log.seek(self._position)
            lines = log.read().rpartition(b"\n")[0]
        self._position += len(lines) + 1 if lines else 0
        came = [json.loads(line) for line in lines.decode().splitlines() if all(m in line for m in self._marks)]
        unread, self._unread = [*self._unread, *came], []
        return unread

    def next(self, resource: str, verb: str) -> Manifest | None:
        """The first write of that kind among those that came, and forget all up to it; None where there is none yet."""
        self._unread = self.new()
        for index, record in enumerate(self._unread):
            if is_write(record, resource, verb):
                del self._unread[: index + 1]
                return record
        return None

    def await_writes(self, size: int, *kinds: tuple[str, str], timeout: float) -> list[Manifest]:
        """What came until so many objects had each kind of write (resource, verb); each record is read once."""
        seen: list[Manifest] = []
        written: dict[tuple[str, str], set[str]] = {kind: set() for kind in kinds}

        def enough() -> bool:
            for record in self.new():
                seen.append(record)
                for kind in kinds:
                    if is_write(record, *kind):
                        # An Event has no name in the record of its creation.
                        written[kind].add(record["objectRef"].get("name") or record["auditID"])
            return all(len(found) >= size for found in written.values())

        until(enough, timeout, f"{', '.join(f'{verb} {resource}' for resource, verb in kinds)}, {size} times")
        return seen


def first_writes(records: Iterable[Manifest], resource: str) -> dict[str, float]:
    """When each object of a kind was first patched, by its name: the answer's time, in seconds since the epoch."""
    found: dict[str, float] = {}
    for record in records:
        if is_write(record, resource):
            found.setdefault(record["objectRef"]["name"], moment(record))
    return found


def is_write(record: Manifest, resource: str, verb: str = "patch", subresource: str | None = None) -> bool:
    """Whether a record is of a write to an object of that kind, which the API server accepted."""
    about = record.get("objectRef") or {}
    return (
        record["verb"] == verb
        and record["responseStatus"]["code"] < 300
        and about.get("resource") == resource
        and about.get("subresource") == subresource
    )


def moment(record: Manifest) -> float:
    """When a request was answered, in seconds since the epoch."""
    return datetime.datetime.fromisoformat(record["stageTimestamp"]).timestamp()
