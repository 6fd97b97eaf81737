"""Training curves as small SVG charts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

COLOURS = ("#2f5fd0", "#d9541e", "#2a9d6f", "#8a4fd0", "#b08900", "#c0356b")
LABELS = {
    "loss": "training",
    "val/loss": "validation",
    "val/loss/action": "own images",
    "val_swapped/loss/action": "another sample's images",
}
TEXT, GRID = "#3c4250", "#e3e6ec"
FEW_POINTS = 12
"""Curves with fewer points show a marker for each."""

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Chart:
    """A chart of `fields` of metrics.jsonl over steps."""

    title: str
    fields: tuple[str, ...]
    unit: str = ""
    logarithmic: bool = False


@dataclass(frozen=True)
class Line:
    """One curve of a chart."""

    label: str
    points: list[tuple[int, float]]
    colour: str


def charts_of(rows: Rows) -> list[Chart]:
    """Charts for the fields that these metrics have."""
    names = {name for row in rows for name in row}
    parts = tuple(sorted(name for name in names if name.startswith("loss/")))
    norms = tuple(sorted(name for name in names if name.startswith("grad_norm/")))
    candidates = [
        Chart("Loss", ("loss", "val/loss")),
        Chart("Losses by part", parts),
        Chart("Held-out action loss: does it use the images?", ("val/loss/action", "val_swapped/loss/action")),
        Chart("Learning rate, as applied", ("lr",)),
        Chart("Gradient norm", ("grad_norm",), logarithmic=True),
        Chart("Gradient norm of each loss on the shared model", norms, logarithmic=True),
        Chart("Speed", ("samples_per_s",), unit="samples/s"),
        Chart("Share of time waiting for data", ("data_wait_share",)),
        Chart("Speed of a rank", ("tflops_per_rank",), unit="TFLOP/s"),
        Chart("Model FLOPs utilisation", ("mfu",)),
        Chart("Memory of a rank", ("rss_gib",), unit="GiB"),
        Chart("GPU utilisation", ("gpu_utilisation",)),
        Chart("GPU power", ("gpu_power_w",), unit="W"),
    ]
    if len(parts) < 2:  # a single part equals the loss
        candidates = [chart for chart in candidates if chart.fields != parts]
    return [chart for chart in candidates if any(name in names for name in chart.fields)]


def draw_chart(chart: Chart, rows: Rows) -> str:
    """SVG text of one chart of one run."""
    present = [name for name in chart.fields if points_of(rows, name)]
    lines = [
        Line(LABELS.get(name, name.split("/", 1)[-1]), points_of(rows, name), colour)
        for name, colour in zip(present, COLOURS * 3, strict=False)
    ]
    return draw_lines(lines, chart.unit, chart.logarithmic)


def points_of(rows: Rows, name: str) -> list[tuple[int, float]]:
    """(step, value) of one field, without lines where it is missing or not finite."""
    return [(row["step"], row[name]) for row in rows if row.get(name) is not None]


def _plain(label: str) -> str:
    """A label without matplotlib's special meanings: `$` begins a formula, and `_` at the beginning hides a curve."""
    text = label.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def draw_lines(lines: Sequence[Line], unit: str, logarithmic: bool) -> str:
    """SVG text of curves on the same axes, with a legend if there are several."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 2.5), layout="constrained")
    axes = figure.add_subplot()
    for line in lines:
        steps, values = zip(*line.points, strict=True)
        marker = "o" if len(line.points) < FEW_POINTS else None
        axes.plot(
            steps, values, color=line.colour, linewidth=1.6, marker=marker, markersize=3, label=_plain(line.label)
        )
    if len(lines) > 1:
        axes.legend(fontsize=7, frameon=False)
    if logarithmic:
        axes.set_yscale("log")
    axes.set_xlabel("step", fontsize=8, color=TEXT)
    axes.set_ylabel(unit, fontsize=8, color=TEXT)
    axes.tick_params(labelsize=7, colors=TEXT, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
