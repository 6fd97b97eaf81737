"""Frames of the video of a trial: instruction, views with masks, predicted actions, and the outcome in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pokevla.evaluation.drawing.actions import COLOURS, ActionPanel, draw_actions
from pokevla.evaluation.drawing.lettering import LIGHT, OUTCOME_COLOURS, OUTCOME_WORDS, PLATE, font, tag, wrapped
from pokevla.evaluation.drawing.plots import ON_DARK
from pokevla.evaluation.running.watching import Ending
from pokevla.policy.pictures import PREDICTED_COLOUR, TRUE_COLOUR, draw_views

SIDE = 256
"""Of each view in pixels."""
VIEW_GAP, MARGIN = 4, 8
LINE, MOST_LINES = 18, 3
"""Height of a line of the instruction, and how many lines it may have."""
NOTE_HEIGHT, PLOT_HEIGHT, PLOT_TITLE, BAR_HEIGHT = 18, 54, 17, 24
DIM = (158, 163, 176)


@dataclass(frozen=True)
class Seen:
    """What the policy saw at one query, and what it answered. V views of the robot."""

    step: int
    images: np.ndarray  # (V, H, W, 3) uint8
    predicted: np.ndarray | None  # (V, H, W) bool
    true: np.ndarray | None  # (V, H, W) bool
    ious: tuple[float | None, ...]
    """Overlap of both masks in each view; None where neither is in view; empty without both."""
    chunk: np.ndarray | None  # (K, A) raw actions


@dataclass(frozen=True)
class FrameTexts:
    """What is the same in all frames of a video."""

    instruction: str
    note: str
    """Policy and trial."""
    views: tuple[str, ...]
    panels: tuple[ActionPanel, ...]
    max_steps: int
    actions_per_query: int


def draw_frame(texts: FrameTexts, seen: Seen, ending: Ending | None = None) -> np.ndarray:
    """One frame, (H, W, 3) uint8: two views are 516 pixels wide. All frames of a trial have the same size.

    `ending` is given for the last frame, which says how the trial has ended.
    """
    width = len(seen.images) * (SIDE + VIEW_GAP) - VIEW_GAP
    lines = wrapped(f'"{texts.instruction}"', font(14), width - 2 * MARGIN, MOST_LINES)
    top = 6 + LINE * len(lines) + NOTE_HEIGHT
    height = top + SIDE + PLOT_TITLE + PLOT_HEIGHT + 6 + BAR_HEIGHT
    frame = Image.new("RGB", (width, height + height % 2), PLATE)  # even, for the video
    draw = ImageDraw.Draw(frame)
    for number, line in enumerate(lines):
        draw.text((MARGIN, 5 + LINE * number), line, LIGHT, font(14))
    draw.text((MARGIN, top - NOTE_HEIGHT), texts.note, DIM, font(11))
    _mask_colours(draw, width - MARGIN, top - NOTE_HEIGHT, seen)
    _views(frame, draw, top, texts.views, seen)
    _actions(frame, draw, top + SIDE, texts, seen)
    _bar(draw, (height - BAR_HEIGHT, frame.height), width, texts, seen, ending)
    return np.asarray(frame)


def view_notes(views: Sequence[str], ious: Sequence[float | None]) -> list[str]:
    """A line for each view: its name, and the overlap of its masks where both are known."""
    if not ious:
        return list(views)
    return [f"{view}: {iou_text(iou)}" for view, iou in zip(views, ious, strict=True)]


def iou_text(iou: float | None) -> str:
    """The overlap of two masks in words; None if neither has a pixel."""
    return "no mask" if iou is None else f"IoU {iou:.2f}"


def _views(frame: Image.Image, draw: ImageDraw.ImageDraw, top: int, names: Sequence[str], seen: Seen) -> None:
    drawn = draw_views(seen.images, seen.predicted, seen.true, SIDE)
    for number, (view, note) in enumerate(zip(drawn, view_notes(names, seen.ious), strict=True)):
        left = number * (SIDE + VIEW_GAP)
        frame.paste(Image.fromarray(view), (left, top))
        tag(draw, (left + 4, top + SIDE - 4), note)


def _actions(frame: Image.Image, draw: ImageDraw.ImageDraw, top: int, texts: FrameTexts, seen: Seen) -> None:
    """One plot for each field of the command, over the actions of the chunk. Those that are executed are shaded."""
    count = len(texts.panels)
    width = (frame.width - 2 * MARGIN - (count - 1) * MARGIN) // count
    chunk = seen.chunk
    executed = 0 if chunk is None else min(len(chunk), texts.actions_per_query)
    span = (-0.5, (1 if chunk is None else len(chunk)) - 0.5)
    actions = [] if chunk is None else [(float(number), action) for number, action in enumerate(chunk)]
    for number, panel in enumerate(texts.panels):
        left = MARGIN + number * (width + MARGIN)
        _title(draw, panel, (left, top + 3), width)
        shaded = executed - 0.5 if actions else None
        plot = draw_actions(panel, (width, PLOT_HEIGHT), actions, span, ON_DARK, shaded_until=shaded)
        frame.paste(plot, (left, top + PLOT_TITLE))
        if not actions:
            middle = (left + width // 2, top + PLOT_TITLE + PLOT_HEIGHT // 2)
            draw.text(middle, "no more actions", DIM, font(10), anchor="mm")


def _title(draw: ImageDraw.ImageDraw, panel: ActionPanel, place: tuple[int, int], width: int) -> None:
    """Name of a field, its components in their colours, and the ends of its scale."""
    left, top = place
    draw.text((left, top), panel.title, LIGHT, font(11))
    x = left + font(11).getlength(f"{panel.title}  ")
    for number, name in enumerate(panel.components):
        draw.text((x, top), name, COLOURS[number % len(COLOURS)], font(11))
        x += font(11).getlength(f"{name} ")
    ends = f"{panel.ends[0]} to {panel.ends[1]}"
    if x + font(10).getlength(ends) <= left + width:
        draw.text((left + width, top + 1), ends, DIM, font(10), anchor="ra")


def _bar(
    draw: ImageDraw.ImageDraw,
    edges: tuple[int, int],
    width: int,
    texts: FrameTexts,
    seen: Seen,
    ending: Ending | None,
) -> None:
    """The number of steps with a bar of progress; in the end the outcome on its own colour."""
    top, bottom = edges
    middle, limit = (top + bottom) // 2, texts.max_steps
    if ending is not None:
        draw.rectangle((0, top, width, bottom), OUTCOME_COLOURS[ending.outcome])
        text = f"{OUTCOME_WORDS[ending.outcome]} after {ending.steps} of at most {limit} steps"
        draw.text((MARGIN, middle), text, (255, 255, 255), font(14), anchor="lm")
        return
    draw.rectangle((0, top, round(width * min(seen.step / limit, 1.0)), bottom), ON_DARK.grid)
    draw.text((MARGIN, middle), f"step {seen.step} of at most {limit}", LIGHT, font(12), anchor="lm")
    if seen.chunk is not None:
        count = min(len(seen.chunk), texts.actions_per_query)
        text = f"executes {count} of {len(seen.chunk)} predicted actions"
        draw.text((width - MARGIN, middle), text, DIM, font(11), anchor="rm")


def _mask_colours(draw: ImageDraw.ImageDraw, right: int, top: int, seen: Seen) -> None:
    """Which masks there are, in their colours, from the right."""
    masks = (("true mask", TRUE_COLOUR, seen.true), ("predicted mask", PREDICTED_COLOUR, seen.predicted))
    for text, colour, mask in masks:
        if mask is not None:
            draw.text((right, top), text, colour, font(11), anchor="ra")
            right -= round(font(11).getlength(text)) + MARGIN
