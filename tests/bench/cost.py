"""What did a stretch of work cost: CPU and memory of each process, and requests to the API server?"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.testbed.controlplane import ControlPlane, Request

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
