"""Training curves as small SVG pictures."""

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


@dataclass(frozen=True)
class Chart:
    """One small chart: `fields` of metrics.jsonl over steps."""

    title: str
    fields: tuple[str, ...]
    unit: str = ""
    logarithmic: bool = False


def charts_of(rows: Sequence[dict[str, Any]]) -> list[Chart]:
    """Charts for what these metrics hold."""
    names = {name for row in rows for name in row}
    parts = tuple(sorted(name for name in names if name.startswith("loss/")))
    norms = tuple(sorted(name for name in names if name.startswith("grad_norm/")))
    candidates = [
        Chart("Loss", ("loss", "val/loss")),
        Chart("Losses by part", parts),
        Chart("Held-out action loss: does it look?", ("val/loss/action", "val_swapped/loss/action")),
        Chart("Learning rate, as applied", ("lr",)),
        Chart("Gradient norm", ("grad_norm",), logarithmic=True),
        Chart("Gradient norm of each loss on the shared model", norms, logarithmic=True),
        Chart("Speed", ("samples_per_s",), unit="samples/s"),
        Chart("Share of time waiting for data", ("data_wait_share",)),
        Chart("Memory of a rank", ("rss_gib",), unit="GiB"),
    ]
    if len(parts) < 2:  # one part is the loss itself
        candidates = [chart for chart in candidates if chart.fields != parts]
    return [chart for chart in candidates if any(name in names for name in chart.fields)]


def draw_chart(chart: Chart, rows: Sequence[dict[str, Any]]) -> str:
    """SVG text of one chart."""
    from matplotlib.figure import Figure

    present = [name for name in chart.fields if any(row.get(name) is not None for row in rows)]
    figure = Figure(figsize=(4.2, 2.5), layout="constrained")
    axes = figure.add_subplot()
    for name, colour in zip(present, COLOURS * 3, strict=False):
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) < 12 else None
        label = LABELS.get(name, name.split("/", 1)[-1])
        axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, markersize=3, label=label)
    if len(present) > 1:
        axes.legend(fontsize=7, frameon=False)
    if chart.logarithmic:
        axes.set_yscale("log")
    axes.set_xlabel("step", fontsize=8, color=TEXT)
    axes.set_ylabel(chart.unit, fontsize=8, color=TEXT)
    axes.tick_params(labelsize=7, colors=TEXT, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
