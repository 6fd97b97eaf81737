"""Frames of one trial have one size, show the actions, and end with the outcome."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pytest

from pokevla.embodiment.libero import LIBERO
from pokevla.evaluation.drawing.actions import action_panels
from pokevla.evaluation.drawing.frames import BAR_HEIGHT, SIDE, FrameTexts, Seen, draw_frame
from pokevla.evaluation.drawing.lettering import OUTCOME_COLOURS
from pokevla.evaluation.running.watching import Ending
from pokevla.evaluation.trial_records import Outcome
from pokevla.policy.pictures import PREDICTED_COLOUR, TRUE_COLOUR
from tests.unit.evaluation.drawing.trials import chunk

TEXTS = FrameTexts("pick up the sauce", "trained, task 3", LIBERO.views, tuple(action_panels(LIBERO)), 220, 8)


def seen(actions: np.ndarray | None = None, masks: bool = False) -> Seen:
    mask = np.zeros((2, 32, 32), bool)
    mask[0, 8:16, 8:16] = True
    known = (mask, np.roll(mask, 4, axis=1), (0.3, None)) if masks else (None, None, ())
    return Seen(16, np.full((2, 32, 32, 3), 90, np.uint8), *known, actions)


def colour_is_there(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture == colour).all(axis=-1).any())


def test_all_frames_of_a_trial_have_one_even_size() -> None:
    frames = [
        draw_frame(TEXTS, seen(chunk(), masks=True)),
        draw_frame(TEXTS, seen(None)),
        draw_frame(TEXTS, seen(chunk(length=16)), Ending("crashed", 16)),
    ]
    assert len({frame.shape for frame in frames}) == 1
    height, width, _ = frames[0].shape
    assert (width, height % 2) == (2 * SIDE + 4, 0)
    assert height < 420


def test_the_last_frame_says_what_came_out_in_its_own_colour() -> None:
    bars = {}
    for outcome in get_args(Outcome):
        bar = draw_frame(TEXTS, seen(), Ending(outcome, 84))[-BAR_HEIGHT:]
        assert (bar == OUTCOME_COLOURS[outcome]).all(axis=-1).mean() > 0.5
        bars[outcome] = bar
    running = draw_frame(TEXTS, seen())[-BAR_HEIGHT:]
    assert not any(colour_is_there(running, colour) for colour in OUTCOME_COLOURS.values())
    later = draw_frame(TEXTS, seen(), Ending("success", 120))[-BAR_HEIGHT:]
    assert (later != bars["success"]).any(), "the number of steps"


def test_masks_are_in_their_own_view_only_and_named() -> None:
    frame = draw_frame(TEXTS, seen(masks=True))
    top = next(row for row in range(200) if (frame[row, 100] == 90).all())
    base, wrist = frame[top : top + SIDE, :SIDE], frame[top : top + SIDE, SIDE:]
    for colour in (PREDICTED_COLOUR, TRUE_COLOUR):
        assert colour_is_there(base, colour)
        assert not colour_is_there(wrist, colour)
    header, without = frame[:top], draw_frame(TEXTS, seen())[:top]
    assert (header != without).any()


@pytest.mark.parametrize("other", [chunk(-0.5), chunk(0.5, length=3), None])
def test_other_actions_look_otherwise(other: np.ndarray | None) -> None:
    strips = [draw_frame(TEXTS, seen(actions))[-110:-BAR_HEIGHT] for actions in (chunk(0.5), other)]
    assert (strips[0] != strips[1]).any()


def test_actions_that_are_predicted_and_not_executed_lie_outside_the_shade() -> None:
    few = dataclasses.replace(TEXTS, actions_per_query=2)
    shaded, all_shaded = (draw_frame(texts, seen(chunk(0.0)))[-40] for texts in (few, TEXTS))
    left, right = shaded[16], shaded[150]
    assert (left != right).any()
    assert (all_shaded[16] == all_shaded[150]).all()


def test_a_long_instruction_makes_every_frame_higher_up_to_three_lines() -> None:
    heights = [
        draw_frame(dataclasses.replace(TEXTS, instruction="put it there " * count), seen()).shape[0]
        for count in (1, 9, 30, 300)
    ]
    assert heights[0] < heights[1] < heights[2] == heights[3]
