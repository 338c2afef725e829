"""How do the figures look as curves? One picture for each, beside docs/benchmarks.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from tests.bench.results import Figure

FOLDER = Path("docs/benchmarks")


@dataclass(frozen=True, slots=True)
class Line:
    """The quantities of one scenario that make a line: their x is the number in their name."""

    scenario: str
    quantity: str  # a pattern with one group
    label: str

    def points(self, figures: Sequence[Figure]) -> list[tuple[float, tuple[float, float, float]]]:
        """x, and minimum, median and maximum over the repeats."""
        found = [
            (float(match[1].replace(",", "")), figure.spread)
            for figure in figures
            if figure.scenario == self.scenario and (match := re.fullmatch(self.quantity, figure.quantity))
        ]
        return sorted(found)


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture."""

    name: str
    x: str
    y: str
    lines: tuple[Line, ...]


PLOTS = (
    Plot(
        "throughput-over-concurrency",
        "requests to the CA at a time",
        "renewals a second",
        (Line("throughput over concurrency", r"([\d,]+) at a time, renewals a second", "500 renewals"),),
    ),
    Plot(
        "memory-over-secrets",
        "Secrets",
        "settled RSS, MB",
        (
            Line("a fleet of certificates", r"settled with ([\d,]+), MB", "managed"),
            Line("beside other Secrets", r"settled beside ([\d,]+), MB", "unrelated, 10 kB, one in ten 100 kB"),
        ),
    ),
    Plot(
        "lateness-over-load",
        "renewals due a second",
        "lateness at most, s",
        tuple(
            Line("lateness over load", rf"([\d,]+) a second, p{share} at most, s", f"p{share}") for share in (50, 99)
        ),
    ),
)


def draw(figures: Sequence[Figure]) -> None:
    """Draw each plot whose figures are there."""
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "certrenewal", "font.size": 9})
    FOLDER.mkdir(exist_ok=True)
    for plot in PLOTS:
        lines = {line.label: points for line in plot.lines if (points := line.points(figures))}
        if lines:
            _draw(plot, lines)


def _draw(plot: Plot, lines: dict[str, list[tuple[float, tuple[float, float, float]]]]) -> None:
    picture, axes = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    for label, points in lines.items():
        xs = [x for x, _ in points]
        low, middle, high = zip(*(spread for _, spread in points), strict=True)
        axes.plot(xs, middle, marker="o", label=label)
        axes.fill_between(xs, low, high, alpha=0.2)
    axes.set(xlabel=plot.x, ylabel=plot.y, ylim=(0, None))
    axes.grid(alpha=0.3)
    if len(lines) > 1:
        axes.legend()
    picture.savefig(FOLDER / f"{plot.name}.svg", metadata={"Date": None})
    plt.close(picture)
