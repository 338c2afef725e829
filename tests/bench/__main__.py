"""Which scenarios are run, how often, and where do the figures go: ``python -m tests.bench [--quick] [NAME…]``."""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import bursts, fleet, latency, plots, raw, restarts, steady
from tests.bench.results import Figure, collect, write
from tests.testbed import tools
from tests.testbed.controlplane import ControlPlane

Run = Callable[[Path], Mapping[str, float]]


def on_cluster(scenario: Callable[..., Mapping[str, float]], **choices: Any) -> Run:
    """The scenario on a cluster of its own each time: nothing of an earlier run is still being tidied up."""

    def run(folder: Path) -> Mapping[str, float]:
        with ControlPlane(folder / "plane") as plane:
            return scenario(plane, folder, **choices)

    return run


SCENARIOS: dict[str, Run] = {
    **{f"issue {size:,} at once": on_cluster(bursts.issue, size=size) for size in (200, 1000, 5000)},
    **{f"renew {size:,} at once": on_cluster(bursts.renew, size=size) for size in (200, 1000, 5000)},
    "throughput over concurrency": functools.partial(bursts.over_concurrency, size=500, places=(1, 2, 4, 8, 16, 32)),
    "the CA alone": functools.partial(raw.ratio, size=500, places=(1, 4, 16, 32)),
    "one renewal after the other": on_cluster(latency.renewal, size=100),
    "one new Secret after the other": on_cluster(latency.filling, size=200),
    "one restart after the other": on_cluster(latency.restart, size=30),
    "restart latency, 50 Secrets at once": on_cluster(restarts.latency, size=50),
    "restart latency, 500 Secrets at once": on_cluster(restarts.latency, size=500),
    "50 Secrets of one workload within 2 s": on_cluster(restarts.one_workload, size=50),
    "500 workloads, 100 restarts a minute": on_cluster(restarts.budget, size=500),
    "a fleet of certificates": on_cluster(fleet.managed, sizes=(0, 1000, 3000, 10000)),
    "beside other Secrets": on_cluster(fleet.unrelated, sizes=(0, 10000, 50000)),
    "lateness over load": functools.partial(steady.over_load, rates=(10, 20, 40, 60, 80), seconds=90),
    "10,000 certificates, 30 renewals a second": on_cluster(steady.steady, size=10000, rate=30, seconds=600),
    "25 renewals of 2,400 certificates": on_cluster(steady.steady, size=2400, rate=50, seconds=1200),
}
# What takes longest is run once.
ONCE = frozenset(
    {
        "issue 5,000 at once",
        "renew 5,000 at once",
        "throughput over concurrency",
        "restart latency, 500 Secrets at once",
        "500 workloads, 100 restarts a minute",
        "a fleet of certificates",
        "beside other Secrets",
        "lateness over load",
        "10,000 certificates, 30 renewals a second",
        "25 renewals of 2,400 certificates",
    }
)
QUICK: dict[str, Run] = {
    "renew 200 at once": SCENARIOS["renew 200 at once"],
    "the CA alone": SCENARIOS["the CA alone"],
    "one renewal after the other": on_cluster(latency.renewal, size=30),
    "restart latency, 50 Secrets at once": SCENARIOS["restart latency, 50 Secrets at once"],
    "50 Secrets of one workload within 2 s": SCENARIOS["50 Secrets of one workload within 2 s"],
}


def main() -> int:
    """Run what is asked for; figures are written after each scenario, those of others stay as they are."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of scenarios; all where none is given")
    parser.add_argument("--quick", action="store_true", help="a few small ones, once each and only printed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("docs/benchmarks.json"))
    asked = parser.parse_args()
    known = QUICK if asked.quick else SCENARIOS
    chosen = {name: run for name, run in known.items() if not asked.names or any(part in name for part in asked.names)}
    if not chosen:
        parser.error(f"no scenario has such a name; there are: {'; '.join(known)}")
    failed: list[str] = []
    for name, run in chosen.items():
        try:
            figures = measure(name, run, 1 if asked.quick or name in ONCE else asked.repeats)
        except Exception:  # noqa: BLE001 - hours of other figures are not to be lost for it
            traceback.print_exc()
            failed.append(name)
            continue
        if not asked.quick:
            versions = {name: tool.version for name, tool in tools.TOOLS.items()}
            plots.draw(write(figures, versions, order=list(SCENARIOS), json_file=asked.json))
    if failed:
        print(f"without figures: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def measure(name: str, run: Run, times: int) -> list[Figure]:
    """One scenario so many times, each figure printed."""
    runs: list[Mapping[str, float]] = []
    for repeat in range(times):
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            runs.append(run(Path(folder)))
        print(f"{name}: run {repeat + 1} of {times}, {time.monotonic() - started:.0f} s", file=sys.stderr)
    figures = collect(name, runs, day=datetime.now(UTC).date())
    for figure in figures:
        print(f"{name} | {figure.quantity} | {' | '.join(f'{value:.4g}' for value in figure.spread)}", flush=True)
    return figures


if __name__ == "__main__":
    sys.exit(main())
