"""Maps end up on the right patch of the right view, and strips and frames hold what they should."""

from __future__ import annotations

import numpy as np
import pytest

from pokevla.embodiment.libero import LIBERO
from pokevla.evaluation.explaining.maps import MASK, PANELS, Look, drawn_panels, heat, look_at, scale_of
from pokevla.evaluation.explaining.moments import Moment, Scene
from pokevla.evaluation.explaining.sheets import CLIP_SIDE, STRIP_SIDE, Story, draw_frame, draw_strip, overlap
from pokevla.policy.explanation.explanation import Explanation
from pokevla.policy.pictures import PREDICTED_COLOUR

WHOLE = (0.0, 0.0, 1.0, 1.0)
HEAD = next(panel for panel in PANELS if panel.name == "head")


def moment(step: int = 0, masks: bool = True) -> Moment:
    true = np.zeros((2, 32, 32), bool)
    true[:, 8:16, 16:24] = True
    return Moment(step, np.full((2, 32, 32, 3), 90, np.uint8), np.zeros(8, np.float32), true if masks else None)


def explanation(with_masks: bool = True) -> Explanation:
    """One observation of 2 layers, 3 heads, 4 latents and 4 queries over 2 views of 2 x 2 patches. Everything looks at
    the upper right patch of the wrist view."""
    vision = np.zeros((1, 2, 3, 4, 2, 2, 2), np.float32)
    vision[..., 1, 0, 1] = 1.0
    logits = np.full((1, 2, 4, 4), -3.0, np.float32)
    logits[:, :, 1, 2] = 3.0
    return Explanation(
        crop_box=WHOLE, actions=np.zeros((1, 4, 7)),
        coarse_logits=logits / 2 if with_masks else None, fine_logits=logits if with_masks else None,
        head_vision=vision, head_queries=None, head_latents=None, head_shares=None, sources=(),
        seg_vision=vision[:, :, :, 0] * 0.25, query_vision=vision * 0.5,
    )  # fmt: skip


def story(with_masks: bool = True, count: int = 3) -> Story:
    looks = [look_at(moment(step), explanation(with_masks)) for step in range(0, 8 * count, 8)]
    scene = Scene("episode-0001", "toy", "Follow the square", LIBERO, [look.moment for look in looks])
    return Story(scene, looks, "mine")


def test_attention_is_relative_to_looking_everywhere_alike() -> None:
    look = look_at(moment(), explanation())
    assert look.maps["head"].shape == (2, 2, 2)
    assert look.maps["head"][1, 0, 1] == pytest.approx(8)  # all of it on one of eight patches
    assert look.maps["seg"][1, 0, 1] == pytest.approx(8)
    assert look.shares == pytest.approx({"head": 1.0, "seg": 0.25, "queries": 0.5})


def test_the_hottest_pixels_are_those_of_the_patch() -> None:
    look, image = look_at(moment(), explanation()), np.full((64, 64, 3), 90, np.uint8)
    scale = scale_of(HEAD, [look])
    values = np.kron(look.maps["head"][1], np.ones((32, 32)))
    drawn = heat(image, values.astype(np.float32), HEAD, scale)
    warm = drawn.astype(int)[..., 0] - drawn.astype(int)[..., 2]
    assert warm[:32, 32:].min() > warm[32:].max()


def test_what_lies_outside_the_crop_is_dark_and_has_no_colour() -> None:
    values = np.full((4, 4), np.nan, np.float32)
    values[1:3, 1:3] = 2.0
    drawn = heat(np.full((4, 4, 3), 100, np.uint8), values, HEAD, (0.0, 2.0))
    assert (drawn[0] == 50).all()
    assert not (drawn[1, 1] == drawn[1, 1, 0]).all()


def test_a_symmetric_scale_has_zero_in_its_middle() -> None:
    coarse = next(panel for panel in PANELS if panel.name == "coarse")
    low, high = scale_of(coarse, [look_at(moment(), explanation())])
    assert low == -high
    assert high == pytest.approx(1.5, abs=0.01)


def test_masks_overlap_where_they_agree() -> None:
    look = look_at(moment(), explanation())
    assert len(overlap(look)) == 2
    assert min(overlap(look)) > 0.4
    assert overlap(look_at(moment(masks=False), explanation())) == []
    assert overlap(look_at(moment(), explanation(with_masks=False))) == []


def test_a_strip_has_a_row_for_each_panel_and_a_column_for_each_moment() -> None:
    sheet = draw_strip(story(), count=2)
    smaller = draw_strip(story(with_masks=False), count=2)
    assert [panel.name for panel in drawn_panels(story(with_masks=False).looks)] == [MASK, "head", "seg", "queries"]
    assert sheet.width - draw_strip(story(), count=1).width > 2 * STRIP_SIDE
    assert sheet.height - smaller.height > 2 * STRIP_SIDE
    assert PREDICTED_COLOUR in {colour for _, colour in sheet.getcolors(1 << 20)}


def test_frames_of_a_video_are_of_one_size_and_differ() -> None:
    told = story()
    frames = [draw_frame(told, number, told.scales()) for number in range(3)]
    assert len({frame.shape for frame in frames}) == 1
    assert frames[0].shape[0] > 2 * CLIP_SIDE
    assert not np.array_equal(frames[0], frames[1]), "the time has changed"


def test_one_view_and_no_attention_of_the_head_can_be_drawn() -> None:
    one = Look(moment(), WHOLE, {"seg": np.ones((2, 2, 2), np.float32)}, {"seg": 0.5})
    told = Story(Scene("x", "toy", "go", LIBERO, [one.moment]), [one], "mine")
    assert draw_strip(told, 5).height > 0
    assert draw_frame(told, 0, told.scales()).ndim == 3
