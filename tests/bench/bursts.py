"""How many certificates a second, and at what cost each, where many are wanted at the same moment?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.bench.cost import first_writes, memory
from tests.bench.stage import FREE, UNLIMITED, Stage, stage
from tests.testbed.api import Manifest
from tests.testbed.controlplane import ControlPlane


def issue(plane: ControlPlane, folder: Path, size: int) -> dict[str, float]:
    """``size`` empty Secrets that a leader finds at once."""
    names = names_of(size)
    with stage(plane, folder, "bench-issue", FREE) as on:
        with on.standing_by():
            on.order(names)
        return _burst(on, size)


def renew(plane: ControlPlane, folder: Path, size: int) -> dict[str, float]:
    """``size`` certificates that a leader finds due at once."""
    names = names_of(size)
    with stage(plane, folder, "bench-renew", FREE) as on:
        on.orders(names)
        with on.standing_by():
            on.renew(names, "1")
        return _burst(on, size)


def over_concurrency(folder: Path, size: int, places: Sequence[int]) -> dict[str, float]:
    """The rate of renewals with each of these numbers of requests to the CA at a time.

    Each time on a cluster of its own: certificates of an earlier CA would be issued anew, and in the middle of it.
    """
    figures: dict[str, float] = {}
    for number in places:
        limits = {**UNLIMITED, "concurrency": number}
        with (
            ControlPlane(folder / f"plane-{number}") as plane,
            stage(plane, folder / str(number), "bench-places", FREE, limits=limits) as on,
        ):
            on.orders(names_of(size))
            with on.standing_by():
                on.renew(names_of(size), "1")
            figures[f"{number} at a time, renewals a second"] = _burst(on, size)["certificates a second"]
    return figures


def _burst(on: Stage, size: int) -> dict[str, float]:
    """From the moment when an operator that knows everything begins to lead."""
    records, meter = on.records(), on.meter()
    seen = records.await_writes(size, ("secrets", "patch"), ("events", "create"), timeout=60 + size / 10)
    meter.stop()
    times = sorted(first_writes(seen, "secrets").values())
    assert on.ready() == size
    sent = Counter(map(_what, seen))
    return {
        "certificates a second": (size - 1) / (times[-1] - times[0]),
        "requests to the API server each": sent.total() / size,
        **{f"of these {what}": number / size for what, number in sent.most_common() if number >= size / 10},
        "operator RSS at its peak, MB": memory(on.site.operator.process.pid)[1],
        **{f"{name} CPU, ms each": seconds / size * 1000 for name, seconds in meter.cpu.items()},
    }


def _what(record: Manifest) -> str:
    """Verb and resource of a request."""
    about = record["objectRef"]
    return f"{record['verb']} {'/'.join(filter(None, (about['resource'], about.get('subresource'))))}"


def names_of(size: int) -> list[str]:
    """Names for that many Secrets."""
    return [f"s{number:05}" for number in range(size)]
