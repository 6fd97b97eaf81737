"""Actions as curves, one small plot for each field of the robot's command: position, rotation, gripper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pokevla.embodiment.description import Embodiment
from pokevla.evaluation.drawing.lettering import Colour
from pokevla.evaluation.drawing.plots import Axes, Curve, Style, draw_plot

COLOURS: tuple[Colour, ...] = (
    (226, 78, 72), (52, 168, 98), (72, 132, 238), (214, 150, 28), (168, 92, 214), (32, 166, 176), (150, 154, 164),
)  # fmt: skip
"""Of the components of a field, in order."""
ActionBounds = tuple[np.ndarray, np.ndarray]
"""Small and large values of each action column, both (A,): the quantiles 0.01 and 0.99 of the training data."""


@dataclass(frozen=True)
class ActionPanel:
    """One field of the command, and the scale on which its values are drawn."""

    title: str
    columns: range
    low: float
    high: float
    ends: tuple[str, str]
    """What `low` and `high` are called."""

    @property
    def components(self) -> list[str]:
        """Names of the curves; none for a single one."""
        count = len(self.columns)
        if count == 1:
            return []
        return list("xyz") if count == 3 else [str(number + 1) for number in range(count)]

    @property
    def middle(self) -> float:
        """0 where the scale has one, else its middle."""
        return 0.0 if self.low < 0 < self.high else (self.low + self.high) / 2


def action_panels(robot: Embodiment, bounds: ActionBounds | None = None) -> list[ActionPanel]:
    """A panel for each action field of a robot.

    The columns of a field share one scale. It is symmetric where a field is a difference or a velocity. Without
    `bounds` it is -1 to 1, the range of LIBERO's commands. Grippers are drawn between their own commands.
    """
    panels, first = [], 0
    for field in robot.action:
        columns = range(first, first + field.size)
        first += field.size
        commands = {(each.open, each.closed) for each in robot.grippers if each.column in columns}
        if len(commands) == 1 and all(any(each.column == column for each in robot.grippers) for column in columns):
            ((opened, closed),) = commands
            ends = ("open", "closed") if opened < closed else ("closed", "open")
            panels.append(ActionPanel(field.name, columns, min(opened, closed), max(opened, closed), ends))
            continue
        low, high = _scale(robot, columns, bounds)
        panels.append(ActionPanel(field.name, columns, low, high, (f"{low:.2g}", f"{high:.2g}")))
    return panels


def _scale(robot: Embodiment, columns: range, bounds: ActionBounds | None) -> tuple[float, float]:
    if bounds is None:
        return -1.0, 1.0
    low, high = (
        float(np.min(bounds[0][columns.start : columns.stop])),
        float(np.max(bounds[1][columns.start : columns.stop])),
    )
    if not robot.control_mode.startswith("absolute"):
        largest = max(abs(low), abs(high))
        low, high = -largest, largest
    return (low, high) if low < high else (low - 1.0, high + 1.0)


def draw_actions(
    panel: ActionPanel,
    size: tuple[int, int],
    actions: Sequence[tuple[float, np.ndarray]],
    span: tuple[float, float],
    style: Style,
    *,
    marks: Sequence[float] = (),
    shaded_until: float | None = None,
) -> Image.Image:
    """Plot one field of `actions`, pairs of step and action (A,), over the steps of `span`."""
    steps = [step for step, _ in actions]
    curves = [
        Curve(steps, [float(action[column]) for _, action in actions], COLOURS[number % len(COLOURS)])
        for number, column in enumerate(panel.columns)
    ]
    axes = Axes(*span, panel.low, panel.high)
    return draw_plot(size, curves, axes, style, lines=[panel.middle], marks=marks, shaded_until=shaded_until)
