"""The sheet of a trial has its moments side by side and curves of the whole trial."""

from __future__ import annotations

import dataclasses

import numpy as np

from pokevla.embodiment.libero import LIBERO
from pokevla.evaluation.drawing.actions import action_panels
from pokevla.evaluation.drawing.sheets import (
    CELL,
    GAP,
    IOU_HEIGHT,
    LABEL_WIDTH,
    MARGIN,
    VIEW_COLOURS,
    Glimpse,
    TrialStory,
    draw_sheet,
)
from pokevla.evaluation.running.watching import Ending


def story(count: int = 12, ious: tuple[float | None, ...] = (0.8, None)) -> TrialStory:
    glimpses = [
        Glimpse(8 * n, tuple(np.full((CELL, CELL, 3), (n + 1, view, 7), np.uint8) for view in range(2)), ious)
        for n in range(count)
    ]
    actions = [(float(step), np.full(7, 0.3)) for step in range(8 * count)]
    return TrialStory(
        "pick up the sauce", "trained, task 3", LIBERO.views, glimpses, actions, tuple(action_panels(LIBERO)), 20.0,
        Ending("success", 8 * count),
    )  # fmt: skip


def cells(sheet: np.ndarray, view: int) -> list[int]:
    """Moments whose cell of a view is on the sheet."""
    return [n for n in range(40) if (sheet == (n + 1, view, 7)).all(axis=-1).sum() > CELL * CELL / 2]


def test_moments_from_first_to_last_are_shown_in_both_views() -> None:
    sheet = np.asarray(draw_sheet(story()))
    assert sheet.shape[1] == LABEL_WIDTH + 8 * (CELL + GAP) - GAP + MARGIN
    assert cells(sheet, 0) == cells(sheet, 1) == [0, 2, 3, 5, 6, 8, 9, 11]


def test_a_trial_of_one_moment_is_drawn_too() -> None:
    assert cells(np.asarray(draw_sheet(story(count=1))), 1) == [0]


def test_the_overlap_of_each_view_is_a_curve_where_there_is_a_mask() -> None:
    sheet = np.asarray(draw_sheet(story()))[:, LABEL_WIDTH:]
    base, wrist = ((np.abs(sheet.astype(int) - colour) < 12).all(axis=-1).sum() for colour in VIEW_COLOURS[:2])
    assert base > 500
    assert wrist == 0, "no mask in view at any moment"


def test_without_predicted_masks_there_is_no_overlap() -> None:
    with_masks, without = draw_sheet(story()), draw_sheet(story(ious=()))
    assert with_masks.height - without.height == IOU_HEIGHT + GAP
    assert with_masks.width == without.width


def test_the_outcome_and_the_instruction_are_on_the_sheet() -> None:
    first = np.asarray(draw_sheet(story()))
    failed = np.asarray(draw_sheet(dataclasses.replace(story(), ending=Ending("failure", 96))))
    asked = np.asarray(draw_sheet(dataclasses.replace(story(), instruction="open the drawer")))
    assert first.shape == failed.shape == asked.shape
    assert (first[:60] != failed[:60]).any()
    assert (first[:40] != asked[:40]).any()
