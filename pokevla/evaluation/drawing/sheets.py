"""The sheet of a trial: views with masks over time, and curves of the masks' overlap and of the actions.

Columns are moments, rows are views (arXiv 2604.20834, figure 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pokevla.evaluation.drawing.actions import COLOURS, ActionPanel, draw_actions
from pokevla.evaluation.drawing.frames import iou_text
from pokevla.evaluation.drawing.lettering import (
    FAINT,
    INK,
    OUTCOME_COLOURS,
    PAPER,
    Colour,
    evenly,
    font,
    mask_legend,
    tag,
    wrapped,
)
from pokevla.evaluation.drawing.plots import ON_PAPER, Axes, Curve, draw_plot
from pokevla.evaluation.running.watching import Ending

MOMENTS = 8
CELL = 128
"""Side of a view in pixels."""
GAP, MARGIN, LABEL_WIDTH = 6, 12, 104
IOU_HEIGHT, ACTION_HEIGHT = 66, 44
VIEW_COLOURS: tuple[Colour, ...] = ((47, 95, 208), (217, 84, 30), (42, 157, 111), (138, 79, 208))
"""Of the curves of overlap, in the order of the views."""


@dataclass(frozen=True)
class Glimpse:
    """One moment of a trial, small enough to be kept until its end."""

    step: int
    views: tuple[np.ndarray, ...]
    """(CELL, CELL, 3) uint8 each, with masks."""
    ious: tuple[float | None, ...]
    """Of each view; empty without predicted or true masks."""


@dataclass(frozen=True)
class TrialStory:
    """A trial from its first to its last moment."""

    instruction: str
    note: str
    """Policy and trial."""
    view_names: tuple[str, ...]
    glimpses: Sequence[Glimpse]
    actions: Sequence[tuple[float, np.ndarray]]
    """Executed ones: step and raw action (A,)."""
    panels: tuple[ActionPanel, ...]
    control_rate_hz: float
    ending: Ending

    @property
    def has_overlap(self) -> bool:
        """Whether masks were predicted and the true ones are known."""
        return any(glimpse.ious for glimpse in self.glimpses)


def draw_sheet(story: TrialStory, moments: int = MOMENTS) -> Image.Image:
    """At most `moments` evenly spaced moments, the first and the last among them, over curves of all of the trial."""
    chosen = [story.glimpses[index] for index in evenly(len(story.glimpses), moments)]
    plots = max(len(chosen), 4) * (CELL + GAP) - GAP
    width = LABEL_WIDTH + plots + MARGIN
    lines = wrapped(f'"{story.instruction}"', font(17), width - 2 * MARGIN, 2)
    cells = 10 + 23 * len(lines) + 44
    curves = cells + len(story.view_names) * (CELL + GAP) + 12
    height = curves + (IOU_HEIGHT + GAP) * story.has_overlap + len(story.panels) * (ACTION_HEIGHT + GAP) + 24
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((MARGIN, 10 + 23 * number), line, INK, font(17))
    _heading(draw, story, cells - 40)
    _cells(sheet, draw, story, chosen, cells)
    _curves(sheet, draw, story, chosen, (curves, plots))
    return sheet


def _heading(draw: ImageDraw.ImageDraw, story: TrialStory, top: int) -> None:
    note = f"{story.note}: "
    outcome = f"{story.ending.outcome} after {story.ending.steps} steps"
    draw.text((MARGIN, top), note, FAINT, font(12))
    draw.text((MARGIN + font(12).getlength(note), top), outcome, OUTCOME_COLOURS[story.ending.outcome], font(12))


def _cells(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, story: TrialStory, chosen: Sequence[Glimpse], top: int
) -> None:
    for row, name in enumerate(story.view_names):
        draw.text((MARGIN, top + row * (CELL + GAP) + 6), f"{name} view", INK, font(14))
    if story.has_overlap:
        mask_legend(draw, (MARGIN, top + 32))
    for column, glimpse in enumerate(chosen):
        left = LABEL_WIDTH + column * (CELL + GAP)
        draw.text((left, top - 18), f"{glimpse.step / story.control_rate_hz:.1f} s", INK, font(12))
        draw.text((left + CELL, top - 17), f"step {glimpse.step}", FAINT, font(11), anchor="ra")
        for row, view in enumerate(glimpse.views):
            corner = (left, top + row * (CELL + GAP))
            sheet.paste(Image.fromarray(view), corner)
            if glimpse.ious:
                tag(draw, (corner[0] + 3, corner[1] + CELL - 3), iou_text(glimpse.ious[row]))


def _curves(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    story: TrialStory,
    chosen: Sequence[Glimpse],
    place: tuple[int, int],
) -> None:
    """Curves over all steps, below each other. Vertical lines are the moments shown. `place`: top and width."""
    top, width = place
    last = float(max(story.ending.steps, story.glimpses[-1].step, 1))
    marks = [float(glimpse.step) for glimpse in chosen]
    if story.has_overlap:
        axes = Axes(0.0, last, 0.0, 1.0)
        plot = draw_plot((width, IOU_HEIGHT), _overlap(story), axes, ON_PAPER, lines=[0.5], marks=marks)
        sheet.paste(plot, (LABEL_WIDTH, top))
        draw.text((MARGIN, top), "mask IoU", INK, font(13))
        draw.text((LABEL_WIDTH - 4, top), "1", FAINT, font(10), anchor="ra")
        draw.text((LABEL_WIDTH - 4, top + IOU_HEIGHT), "0", FAINT, font(10), anchor="rd")
        for number, name in enumerate(story.view_names):
            _key(draw, (MARGIN, top + 20 + 16 * number), name, VIEW_COLOURS[number])
        top += IOU_HEIGHT + GAP
    for panel in story.panels:
        plot = draw_actions(panel, (width, ACTION_HEIGHT), story.actions, (0.0, last), ON_PAPER, marks=marks)
        sheet.paste(plot, (LABEL_WIDTH, top))
        draw.text((MARGIN, top), panel.title, INK, font(13))
        x = float(MARGIN)
        for number, name in enumerate(panel.components):
            draw.text((x, top + 20), name, COLOURS[number % len(COLOURS)], font(12))
            x += font(12).getlength(f"{name} ")
        draw.text((LABEL_WIDTH - 4, top), panel.ends[1], FAINT, font(10), anchor="ra")
        draw.text((LABEL_WIDTH - 4, top + ACTION_HEIGHT), panel.ends[0], FAINT, font(10), anchor="rd")
        top += ACTION_HEIGHT + GAP
    draw.text((LABEL_WIDTH, top), "actions executed, from the first step", FAINT, font(11))
    draw.text((LABEL_WIDTH + width, top), f"to step {last:.0f}", FAINT, font(11), anchor="ra")


def _overlap(story: TrialStory) -> list[Curve]:
    seen = [glimpse for glimpse in story.glimpses if glimpse.ious]
    steps = [float(glimpse.step) for glimpse in seen]
    return [
        Curve(steps, [glimpse.ious[view] for glimpse in seen], VIEW_COLOURS[view])
        for view in range(len(story.view_names))
    ]


def _key(draw: ImageDraw.ImageDraw, place: tuple[int, int], name: str, colour: Colour) -> None:
    left, top = place
    draw.rectangle((left, top + 6, left + 10, top + 9), colour)
    draw.text((left + 15, top), name, INK, font(11))
