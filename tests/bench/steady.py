"""How late is a renewal, and does anything grow, while certificates are renewed day in, day out?

A day is made short: lives of minutes instead of a day, so that as many renewals are due in a second as a far bigger fleet
would have.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from tests.bench.bursts import names_of
from tests.bench.cost import memory
from tests.bench.stage import FREE, Stage, stage
from tests.testbed.api import Manifest
from tests.testbed.controlplane import ControlPlane
from tests.testbed.operators import Operator

# Of its life, when a certificate is due: before two thirds, and a twentieth of that spread.
DUE = 2 / 3 - 1 / 40
PATIENCE = 5  # seconds in which a certificate that was ordered is there
HALVES = ("first", "second")  # a heap that was just filled moves a while: what grows for ever does so in both
PERIOD = 45  # seconds between two renewals of one certificate, where it is about load alone
WHOLE = timedelta(seconds=1)  # the CA and statuses tell time in whole seconds


def steady(plane: ControlPlane, folder: Path, size: int, rate: float, seconds: float) -> dict[str, float]:
    """``size`` certificates that are due so evenly that ``rate`` are each second, for so many ``seconds``."""
    life = size / rate / DUE
    with stage(plane, folder, "bench-steady", FREE) as on:
        _spread(on, size, rate, life)
        pid = on.site.operator.process.pid
        began, meter, settled = _lateness(on.site.operator), on.meter(), [memory(pid)[0]]
        for _ in HALVES:
            time.sleep(seconds / len(HALVES))  # what is measured is what happens meanwhile
            settled.append(memory(pid)[0])
        meter.stop()
        late = _lateness(on.site.operator) - began
        renewals = on.renewals()
    return {
        "renewals a second": late["count"] / seconds,
        **{f"lateness p{share:g} at most, s": _at_most(late, share / 100) for share in (50, 99, 100)},
        "renewals after two thirds": float(sum(map(_after_two_thirds, renewals))),
        **{
            f"growth of RSS in the {half} half, MB": after - before
            for half, (before, after) in zip(HALVES, itertools.pairwise(settled), strict=True)
        },
        "operator CPU, % of a core": meter.cpu["operator"] / seconds * 100,
    }


def over_load(folder: Path, rates: Sequence[int], seconds: float) -> dict[str, float]:
    """Lateness where each of these numbers of certificates is due a second, each time on a cluster of its own."""
    figures: dict[str, float] = {}
    for rate in rates:
        with ControlPlane(folder / f"plane-{rate}") as plane:
            found = steady(plane, folder / str(rate), size=rate * PERIOD, rate=rate, seconds=seconds)
        for share in (50, 99):
            figures[f"{rate} a second, p{share} at most, s"] = found[f"lateness p{share} at most, s"]
        figures[f"{rate} a second, renewed a second"] = found["renewals a second"]
    return figures


def _spread(on: Stage, size: int, rate: float, life: float) -> None:
    """Order certificates one after the other, over the time that passes until the first is due.

    Each gets a full history once it is there: otherwise what grows in the first ten renewals would be taken for a leak.
    """
    began, names = time.monotonic(), names_of(size)
    behind = int(rate * PATIENCE)
    for number, name in enumerate(names):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        on.site.order(on.namespace, name, duration=f"{life:.0f}s")
        if number >= behind:
            on.age(names[number - behind])
    on.await_ready(size)
    on.each(on.age, names[-behind:])


def _lateness(operator: Operator) -> Counter[str]:
    """The operator's histogram: renewals by the upper bound of their lateness, and how many there were."""
    prefix = "certrenewal_renewal_lateness_seconds_"
    found = {name.removeprefix(prefix): value for name, value in operator.metrics().items() if name.startswith(prefix)}
    return Counter({name: int(value) for name, value in found.items() if name.startswith(("bucket", "count"))})


def _at_most(late: Mapping[str, int], share: float) -> float:
    """The bound under which that share of the renewals lies; infinite where no bound is known."""
    bounds = sorted((float(name.split('"')[1]), count) for name, count in late.items() if name.startswith("bucket"))
    return next(bound for bound, count in bounds if count >= share * late["count"])


def _after_two_thirds(renewal: Manifest) -> int:
    """How many certificates of a history were replaced later than after two thirds of their life."""
    history = renewal["status"]["history"]
    return sum(_is_late(old, new) for new, old in itertools.pairwise(history))


def _is_late(old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    began, ended, replaced = (_moment(text) for text in (old["time"], old["notAfter"], new["time"]))
    return replaced - began > (ended - began) * 2 / 3 + WHOLE


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
