"""How are figures kept and shown: min, median and max over repeats, as JSON and as a table in docs/benchmarks.md?"""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

PAGE = Path("docs/benchmarks.md")
_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity over all repeats of one scenario."""

    scenario: str
    quantity: str
    values: tuple[float, ...]
    day: str = ""  # when it was measured, in UTC; "" where that is not known

    @property
    def spread(self) -> tuple[float, float, float]:
        """Its minimum, median and maximum."""
        return min(self.values), statistics.median(self.values), max(self.values)


def collect(scenario: str, runs: Iterable[Mapping[str, float]], *, day: date) -> list[Figure]:
    """The figures of the runs of one scenario, in the order of the first run."""
    known = list(runs)
    return [Figure(scenario, quantity, tuple(run[quantity] for run in known), day.isoformat()) for quantity in known[0]]


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which ``share`` of them lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def write(
    figures: Iterable[Figure], versions: Mapping[str, str], *, order: Sequence[str], json_file: Path
) -> list[Figure]:
    """Both forms, and all figures that there are now: those of other scenarios stay as they were.

    The table replaces what the page had between its two marks; its scenarios are in the given order.
    """
    new = list(figures)
    measured = {figure.scenario for figure in new}
    kept = [figure for figure in _read(json_file) if figure.scenario not in measured and figure.scenario in order]
    known = sorted([*kept, *new], key=lambda figure: order.index(figure.scenario))
    content = {"machine": machine(), "versions": dict(versions), "figures": [asdict(figure) for figure in known]}
    json_file.write_text(json.dumps(content, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    PAGE.write_text(f"{before}{_BEGIN}\n{_table(known, versions)}\n{_END}{after}")
    return known


def _read(json_file: Path) -> list[Figure]:
    if not json_file.exists():
        return []
    found = json.loads(json_file.read_text())["figures"]
    return [
        Figure(entry["scenario"], entry["quantity"], tuple(entry["values"]), entry.get("day", "")) for entry in found
    ]


def machine() -> str:
    """The machine in a few words: its processor and how many of its cores there are, its kernel, its Python."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{len(models)} × {models[0]}, Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    )


def _table(figures: list[Figure], versions: Mapping[str, str]) -> str:
    rows = [
        f"| {figure.scenario} | {figure.quantity} | {' | '.join(map(_rounded, figure.spread))} | {len(figure.values)} | "
        f"{figure.day} |"
        for figure in figures
    ]
    used = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    header = ["| scenario | quantity | min | median | max | runs | measured |", "|---|---|---|---|---|---|---|"]
    return "\n".join([f"{machine()}; {used}.", "", *header, *rows])


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
