"""Training curves as small charts: geometry and labels, which `report.html.j2` draws as SVG.

The colours are those of the style sheet, so that a chart follows the reader's light or dark mode, and every point has
its text, for the values that appear under the pointer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pokevla.telemetry.figures import number

NUM_COLOURS = 6
"""Colours of curves in the style sheet, `--curve-0` and so on."""
LABELS = {
    "loss": "training",
    "val/loss": "validation",
    "val/loss/action": "own images",
    "val_swapped/loss/action": "another sample's images",
}
WIDTH, HEIGHT = 420, 248
LEFT, RIGHT, TOP, BOTTOM = 64, 396, 10, 212
"""Sides of the plotting area in a chart of WIDTH x HEIGHT units."""
MARGIN = 0.05
"""Space above and below the curves, as a share of their range."""
TICKS = 5
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
    colour: int  # of the style sheet


@dataclass(frozen=True)
class Curve:
    """A line as it is drawn: positions in units of the chart, y downwards."""

    label: str
    colour: int
    path: str  # "x,y x,y ..."
    points: dict[int, tuple[float, float, str]]  # step -> x, y, value as text
    marked: bool  # whether each point has a marker
    last: str  # value at the last step


@dataclass(frozen=True)
class Plot:
    """Everything that is drawn of a chart."""

    curves: list[Curve]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    unit: str

    @property
    def hover(self) -> list[dict[str, Any]]:
        """One entry for each step: its place, and the value of every curve there. JSON, for `report.js`."""
        steps = sorted({step for curve in self.curves for step in curve.points})
        return [
            {
                "step": step,
                "x": next(curve.points[step][0] for curve in self.curves if step in curve.points),
                "values": [
                    {"label": curve.label, "colour": curve.colour, "y": curve.points[step][1],
                     "text": curve.points[step][2]}
                    for curve in self.curves if step in curve.points
                ],
            }
            for step in steps
        ]  # fmt: skip


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


def draw_chart(chart: Chart, rows: Rows) -> Plot:
    """Draw one chart of one run."""
    present = [name for name in chart.fields if points_of(rows, name)]
    lines = [
        Line(LABELS.get(name, name.split("/", 1)[-1]), points_of(rows, name), index % NUM_COLOURS)
        for index, name in enumerate(present)
    ]
    return draw_lines(lines, chart.unit, chart.logarithmic)


def points_of(rows: Rows, name: str) -> list[tuple[int, float]]:
    """(step, value) of one field, without lines where it is missing or not finite."""
    return [(row["step"], row[name]) for row in rows if row.get(name) is not None]


def draw_lines(lines: Sequence[Line], unit: str, logarithmic: bool) -> Plot:
    """Draw curves on the same axes. A logarithmic axis leaves out values that are not positive."""
    kept = [
        Line(line.label, [(step, value) for step, value in line.points if value > 0 or not logarithmic], line.colour)
        for line in lines
    ]
    kept = [line for line in kept if line.points]
    steps = [step for line in kept for step, _ in line.points]
    values = [_scaled(value, logarithmic) for line in kept for _, value in line.points]
    across = _Axis.around(steps, 0.0, LEFT, RIGHT)
    up = _Axis.around(values, MARGIN, BOTTOM, TOP)
    return Plot(
        curves=[_curve(line, across, up, logarithmic) for line in kept],
        x_ticks=[(across.place(step), f"{step:,.0f}") for step in _ticks(across, whole=True)],
        y_ticks=[(up.place(_scaled(value, logarithmic)), f"{value:g}") for value in _values(up, logarithmic)],
        unit=unit,
    )


@dataclass(frozen=True)
class _Axis:
    """A linear axis from `low` to `high`, drawn from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], margin: float, start: float, end: float) -> _Axis:
        low, high = min(values, default=0.0), max(values, default=1.0)
        space = margin * (high - low) if high > low else max(abs(low), 1.0) / 2
        return cls(low - space, high + space, start, end)

    def place(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def _curve(line: Line, across: _Axis, up: _Axis, logarithmic: bool) -> Curve:
    points = {
        step: (across.place(step), up.place(_scaled(value, logarithmic)), number(value)) for step, value in line.points
    }
    path = " ".join(f"{x:g},{y:g}" for x, y, _ in points.values())
    return Curve(line.label, line.colour, path, points, len(points) < FEW_POINTS, number(line.points[-1][1]))


def _scaled(value: float, logarithmic: bool) -> float:
    return math.log10(value) if logarithmic else value


def _ticks(axis: _Axis, *, whole: bool = False) -> list[float]:
    """Round numbers within the axis."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(TICKS, integer=whole).tick_values(axis.low, axis.high)
    return [float(tick) for tick in ticks if axis.low <= tick <= axis.high]


def _values(axis: _Axis, logarithmic: bool) -> list[float]:
    """Values with a label beside the axis: 1, 2 and 5 of each decade on a logarithmic one, if it has room for them."""
    if not logarithmic:
        return _ticks(axis)
    decades = range(math.floor(axis.low), math.ceil(axis.high) + 1)
    for digits in ((1, 2, 5), (1,)):
        values = [digit * 10.0**decade for decade in decades for digit in digits]
        inside = [value for value in values if axis.low <= math.log10(value) <= axis.high]
        if len(inside) <= TICKS + 1:
            break
    return inside if len(inside) > 1 else [10.0**tick for tick in _ticks(axis)]
