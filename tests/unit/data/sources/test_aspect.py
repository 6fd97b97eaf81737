from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pokevla.cli.main import run
from pokevla.data.dataset import open_dataset
from pokevla.data.images.decoding import decode_image, decode_mask
from pokevla.data.reader import ShardReader
from pokevla.data.sources.aspect import Aspect, Squares, square_images
from pokevla.data.sources.libero_vlm import LiberoVLMSettings, convert_libero_vlm

WIDE = np.zeros((1, 4, 8), np.uint8)
"""Half as high as wide, one quarter marked."""
WIDE[0, :, 2:4] = 7


@pytest.mark.parametrize(
    ("sizes", "aspect", "side"),
    [
        ([(8, 8)], "stretch", None),
        ([], "stretch", None),
        ([(4, 8)], "stretch", 8),
        ([(4, 8)], "pad", 8),
        ([(4, 8)], "crop", 4),
        ([(8, 8), (16, 16)], "crop", 16),
        ([(8, 6), (4, 8)], "crop", 6),
        ([(8, 6), (4, 10)], "pad", 10),
    ],
)
def test_the_side_is_the_largest_that_any_image_needs(
    sizes: list[tuple[int, int]], aspect: Aspect, side: int | None
) -> None:
    assert Squares.of(sizes, aspect).side == side


def test_masks_are_stretched_padded_or_cropped_by_whole_pixels() -> None:
    stretched, padded, cropped = (square_images(WIDE, side, aspect)[0] for side, aspect in
                                  ((8, "stretch"), (8, "pad"), (4, "crop")))  # fmt: skip
    assert np.array_equal(stretched, np.repeat(WIDE[0], 2, axis=0))
    assert np.array_equal(padded[2:6], WIDE[0])
    assert not padded[[0, 1, 6, 7]].any()
    assert np.array_equal(cropped, WIDE[0, :, 2:6])


@pytest.mark.parametrize("aspect", ["stretch", "pad", "crop"])
def test_image_and_mask_keep_their_places(aspect: Aspect) -> None:
    mask = np.zeros((1, 30, 50), np.uint8)
    mask[0, 10:20, 20:30] = 1
    image = np.repeat(255 * mask[..., None], 3, axis=-1)
    side = 90
    bright, inside = square_images(image, side, aspect)[0, ..., 0] > 127, square_images(mask, side, aspect)[0] > 0
    assert bright.shape == inside.shape == (side, side)
    assert (bright != inside).mean() < 0.005
    assert inside.any()


def test_a_square_image_of_the_right_size_is_the_same_object() -> None:
    squares = np.zeros((2, 8, 8, 3), np.uint8)
    assert Squares.of([(8, 8)], "pad")(squares) is squares
    assert square_images(squares, 8, "crop") is squares


def make_wide(source: Path) -> None:
    """Cut images and masks of the agent view to half their height."""
    with h5py.File(source, "a") as file:
        for demo in file["data"].values():  # type: ignore[union-attr]
            for key in ("obs/agentview_rgb", "obs/agentview_mask"):
                values = demo[key][()]
                del demo[key]
                demo[key] = values[:, : values.shape[1] // 2]


@pytest.mark.parametrize(("aspect", "side"), [("stretch", 32), ("pad", 32), ("crop", 32)])
def test_a_dataset_has_square_images_and_masks_of_one_size_and_says_how(
    tmp_path: Path, libero_file: Callable[..., Path], aspect: str, side: int
) -> None:
    make_wide(libero_file(demos=1, frames=6, side=32))
    libero_file("pick_up_the_ketchup_and_place_it_in_the_basket", demos=1, frames=6, side=16)
    out = tmp_path / "out"
    assert run(["data", "convert", "libero", str(tmp_path / "source"), str(out), "--aspect", aspect]) == 0
    dataset = open_dataset(out)
    reader = ShardReader(dataset)
    for row in range(dataset.samples.num_rows):
        members = reader.read(row)
        for view in ("base", "wrist"):
            assert decode_image(members[f"{view}.jpg"], "k").size == (side, side)
            assert decode_mask(members[f"{view}.mask.png"], "k").size == (side, side)
    assert dataset.info["made_by"]["settings"]["aspect"] == aspect


def test_questions_are_about_the_square_image(tmp_path: Path, libero_file: Callable[..., Path]) -> None:
    source = libero_file(demos=1, frames=4, side=64)
    make_wide(source)
    settings = LiberoVLMSettings([source], tmp_path / "pad", frame_stride=1, aspect="pad")
    padded = open_dataset(convert_libero_vlm(settings))
    stretched = open_dataset(convert_libero_vlm(replace(settings, out=tmp_path / "stretch", aspect="stretch")))
    for dataset in (padded, stretched):
        assert {(row["width"], row["height"]) for row in dataset.samples.to_pylist()} == {(64, 64)}
    boxes = [box for row in padded.samples.to_pylist() if "-base-" in row["key"] for box in row["target_boxes"]]
    assert boxes
    assert all(box[1] >= 0.25 and box[3] <= 0.75 for box in boxes)  # the bars hold no object
