"""What does an operator need for many certificates, or beside many Secrets: memory, a start, a take-over, rest?"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.bursts import names_of
from tests.bench.cost import cpu_seconds, memory, moment
from tests.bench.stage import FREE, Stage, stage
from tests.cluster.site import SYSTEM
from tests.testbed import manifests
from tests.testbed.controlplane import ControlPlane
from tests.testbed.operators import Operator
from tests.testbed.processes import until

QUIET = 15.0  # seconds after which nothing that was under way is left


def managed(plane: ControlPlane, folder: Path, sizes: Sequence[int]) -> dict[str, float]:
    """An operator started anew with each of these numbers of certificates in turn."""
    figures: dict[str, float] = {}
    with stage(plane, folder, "bench-fleet", FREE) as on:
        made = 0
        for size in sizes:
            on.order(names_of(size)[made:])
            on.await_ready(size)
            on.each(on.age, names_of(size)[made:])
            made = size
            figures |= start(on, size)
            settled, peak = settle(on)
            figures |= {f"settled with {size:,}, MB": settled, f"peak with {size:,}, MB": peak}
        first, last = (figures[f"settled with {size:,}, MB"] for size in (sizes[0], sizes[-1]))
        figures["kB for each certificate"] = (last - first) * 1024 / (sizes[-1] - sizes[0])
        figures["idle CPU with all, % of a core"] = idle(on)
        figures["take-over after a clean stop, s"] = take_over(on)
    return figures


def start(on: Stage, size: int) -> dict[str, float]:
    """Seconds from a process to /readyz, and what it did to CA and workloads, which should be nothing."""
    operator, calls = on.site.operator, on.site.calls()
    operator.stop()
    began = time.monotonic()
    operator.start()
    ready = time.monotonic() - began
    return {
        f"ready with {size:,} after, s": ready,
        f"CA calls at a start with {size:,}": float(on.site.calls() - calls),
    }


def take_over(on: Stage) -> float:
    """Seconds from the end of a leader that was stopped cleanly to the first Secret that the standby writes."""
    name = names_of(1)[0]
    with Operator(on.site.plane, SYSTEM):
        records = on.records()
        on.site.operator.stop()
        ended = time.time()
        on.renew([name], "take-over")
        written = until(lambda: records.next("secrets", "patch") or {}, 60, "the standby acts", pause=0.01)
    return moment(written) - ended


def unrelated(plane: ControlPlane, folder: Path, sizes: Sequence[int]) -> dict[str, float]:
    """The same beside Secrets of 10 kB, one in ten of 100 kB, that nobody annotated."""
    figures: dict[str, float] = {}
    with stage(plane, folder, "bench-bystanders", FREE) as on:
        made = 0
        for size in sizes:
            fill(on, made, size)
            made = size
            on.site.operator.restart()
            settled, peak = settle(on)
            figures |= {f"settled beside {size:,}, MB": settled, f"peak beside {size:,}, MB": peak}
    return figures


def settle(on: Stage) -> tuple[float, float]:
    """Memory now and at its peak, once the operator has come to rest."""
    time.sleep(QUIET)  # its length is what "settled" means
    return memory(on.site.operator.process.pid)


def idle(on: Stage) -> float:
    """The share of a core that an operator uses that has nothing to do."""
    pid, seconds = on.site.operator.process.pid, 30
    before = cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - before) / seconds * 100


def fill(on: Stage, begin: int, end: int) -> None:
    """Secrets that nobody annotated, from number ``begin`` to before ``end``."""
    small, big = (base64.b64encode(secrets.token_bytes(size)).decode() for size in (7_500, 75_000))

    def create(name: str) -> None:
        body = manifests.secret(name, on.namespace)
        on.site.plane.create({**body, "data": {"content": big if name.endswith("0") else small}})

    on.each(create, [f"u{number:05}" for number in range(begin, end)])
