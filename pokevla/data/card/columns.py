"""Histograms of action and proprio columns, with what lies outside of q01 to q99."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pokevla.data.card.histogram import Histogram
from pokevla.data.recordings.checks import columns_of
from pokevla.data.statistics import Moments, Statistics
from pokevla.embodiment.description import Embodiment, FieldSpec, Gripper

_ROOM = 0.25
"""Shown below q01 and above q99, as a share of their distance."""


@dataclass
class Column:
    """One column of actions or proprio."""

    name: str
    unit: str
    histogram: Histogram
    q01: float | None  # None for a gripper, and for a column that is not scaled
    q99: float | None
    marks: dict[str, float]  # raw commands for open and closed of a gripper
    outside: int = 0
    total: int = 0

    def add(self, values: np.ndarray) -> None:
        """Count the values (T,) of an episode."""
        self.histogram.add(values)
        self.total += len(values)
        low, high = (self.q01, self.q99) if not self.marks else (min(self.marks.values()), max(self.marks.values()))
        if low is not None and high is not None:
            slack = 1e-6 * max(1.0, abs(low), abs(high))  # statistics are float64, proprio is float32
            self.outside += int(((values < low - slack) | (values > high + slack)).sum())

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `share_outside` of q01 to q99, for a gripper of open to closed; None where there are none."""
        has_bounds = self.marks or self.q01 is not None
        return {
            "name": self.name, "unit": self.unit, "q01": self.q01, "q99": self.q99, "marks": self.marks,
            "share_outside": self.outside / max(1, self.total) if has_bounds else None,
            "histogram": self.histogram.to_dict(),
        }  # fmt: skip


class ColumnFigures:
    """All action and proprio columns of a robot dataset, in the robot's own units."""

    def __init__(self, embodiment: Embodiment, statistics: Statistics) -> None:
        grippers = {gripper.column: gripper for gripper in embodiment.grippers}
        self.actions = _columns(embodiment.action, statistics.action, statistics.action_mask, grippers)
        every = np.ones(embodiment.proprio_width, dtype=bool)
        self.proprio = _columns(embodiment.proprio, statistics.proprio, every, {})

    def add(self, actions: np.ndarray, proprio: np.ndarray) -> None:
        """Count an episode: actions (T,A) and proprio (T,P), raw."""
        for columns, values in ((self.actions, actions), (self.proprio, proprio)):
            for number, column in enumerate(columns):
                column.add(values[:, number])


def _columns(
    fields: tuple[FieldSpec, ...], moments: Moments, scaled: np.ndarray, grippers: dict[int, Gripper]
) -> list[Column]:
    found = []
    for name, unit, column in columns_of(fields):
        gripper = grippers.get(column)
        if gripper is not None:
            low, high = sorted((gripper.open, gripper.closed))
            marks = {"open": gripper.open, "closed": gripper.closed}
            room = 0.1 * (high - low)
            found.append(Column(name, unit, Histogram(low - room, high + room), None, None, marks))
            continue
        low, high = float(moments.q01[column]), float(moments.q99[column])
        room = _ROOM * (high - low)
        bounds = (low, high) if scaled[column] else (None, None)
        found.append(Column(name, unit, Histogram(low - room, high + room), *bounds, {}))
    return found
