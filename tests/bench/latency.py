"""How long does one thing take on a quiet cluster: one wish after the other, each met before the next?"""

from __future__ import annotations

import time
from pathlib import Path

from tests.bench.bursts import names_of
from tests.bench.cost import Records, moment
from tests.bench.restarts import deploy
from tests.bench.results import percentile
from tests.bench.stage import FREE, stage
from tests.testbed.controlplane import ControlPlane
from tests.testbed.processes import until


def renewal(plane: ControlPlane, folder: Path, size: int) -> dict[str, float]:
    """From the answer to ``renew-now`` to that of the Secret's patch."""
    names = names_of(size)
    with stage(plane, folder, "bench-wish", FREE) as on:
        on.orders(names)
        records = on.records()
        delays = []
        for name in names:
            on.renew([name], "1")
            delays.append(_until_written(records))
    return _figures("renew-now to Secret", delays)


def filling(plane: ControlPlane, folder: Path, size: int) -> dict[str, float]:
    """From the answer to the creation of an empty Secret with its annotations to that of the Secret's patch."""
    with stage(plane, folder, "bench-fill", FREE) as on:
        on.orders(["first"])
        records = on.records()
        delays = []
        for name in names_of(size):
            on.order([name])
            delays.append(_until_written(records))
    return _figures("empty Secret to filled", delays)


def restart(plane: ControlPlane, folder: Path, size: int) -> dict[str, float]:
    """From the answer to the Secret's patch to that of its Deployment's pod template."""
    names = names_of(size)
    with stage(plane, folder, "bench-restart", FREE) as on:
        on.orders(names)
        deploy(on, names)
        delays = []
        for name in names:
            records = on.records()
            on.renew([name], "1")
            written = _next(records, "secrets")
            delays.append((_next(records, "deployments") - written) * 1000)
            until(lambda: on.rolled_out() == size, 60, "the rollout told")
    return _figures("Secret to pod template", delays)


def _until_written(records: Records) -> float:
    """How many ms from now until a Secret is written; then that is told of, so that the next wish finds all quiet."""
    now = time.time()
    written = _next(records, "secrets")
    _next(records, "events", "create")
    return (written - now) * 1000


def _next(records: Records, resource: str, verb: str = "patch") -> float:
    """When the next write of that kind was answered."""
    return moment(until(lambda: records.next(resource, verb) or {}, 30, f"{verb} of {resource}", pause=0.005))


def _figures(what: str, delays: list[float]) -> dict[str, float]:
    return {f"{what} p{share:g}, ms": percentile(delays, share / 100) for share in (50, 95, 99)}
