"""When the states of an episode count as those behind its pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pokevla.errors import DataError
from pokevla.files.foreign.hdf5 import hdf5_reader
from pokevla.simulation.recordings.mask_replay import EpisodeFit, EpisodeMasks, figures, picture_difference
from pokevla.simulation.recordings.stored_episodes import DemoSource, open_episode

GOOD = EpisodeFit(picture_difference=2.0, shifted_difference=9.0, joint_error_rad=0.001, other_joint_error_rad=0.02)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"joint_error_rad": 0.02, "other_joint_error_rad": 0.001}, "another alignment"),
        ({"joint_error_rad": 0.4, "other_joint_error_rad": 0.39}, "joints are 0.40 rad"),
        ({"picture_difference": 30.0, "shifted_difference": 31.0}, "differ by 30.0 grey levels"),
        ({"picture_difference": 9.5}, "one second away"),
    ],
)
def test_each_misfit_is_told(changes: dict[str, float], words: str) -> None:
    complaint = replace(GOOD, **changes).complaint()
    assert complaint is not None
    assert words in complaint


def test_an_episode_too_short_to_compare_a_second_away_still_fits() -> None:
    short = replace(GOOD, shifted_difference=np.inf)
    assert GOOD.complaint() is short.complaint() is None
    assert figures(short)["shifted_difference"] is None


def test_other_lighting_is_no_difference_and_another_scene_is() -> None:
    rng = np.random.default_rng(0)
    scene, other = rng.integers(0, 200, (2, 2, 16, 16, 3)).astype(np.uint8)
    assert picture_difference(scene, scene) == pytest.approx(0.0, abs=1e-9)
    assert picture_difference(scene, (scene * 0.75 + 5).astype(np.uint8)) < 1.0
    assert picture_difference(scene, other) > 40
    assert picture_difference(np.zeros_like(scene), scene) > 40


def test_masks_come_out_of_their_package_as_they_went_in() -> None:
    import zlib

    masks = np.random.default_rng(0).integers(0, 9, (2, 3, 4, 4)).astype(np.uint8)
    packed = EpisodeMasks(GOOD, ["a"], ["a"], masks.shape, zlib.compress(masks.tobytes()))
    np.testing.assert_array_equal(packed.unpack(), masks)


def write_episode(path: Path, frames: int = 4) -> Path:
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"], demo["states"] = np.zeros((frames, 7)), np.zeros((frames, 9))
        demo["obs/joint_states"] = np.zeros((frames, 7))
        demo["obs/agentview_rgb"] = demo["obs/eye_in_hand_rgb"] = np.zeros((frames, 8, 8, 3), np.uint8)
    return path


def source(path: Path, *, before: bool = False) -> DemoSource:
    return DemoSource(path, path, "libero_object", 0, ("demo_0",), before)


def test_published_pictures_show_the_next_state_and_ours_the_same(tmp_path: Path) -> None:
    path = write_episode(tmp_path / "x.hdf5")
    with hdf5_reader() as reader:
        episode = open_episode(source(path), "demo_0", reader)
        assert [episode.state_row(row) for row in range(4)] == [1, 2, 3, None]
        episode = open_episode(source(path, before=True), "demo_0", reader)
        assert [episode.state_row(row) for row in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("states", None, "demo_0/states is missing"),
        ("states", np.zeros((3, 9)), r"demo_0/states has shape \(3, 9\)"),
        ("obs/joint_states", None, "joint_states is missing"),
        ("obs/eye_in_hand_rgb", np.zeros((4, 8, 6, 3), np.uint8), "images of shape"),
        ("obs/rendered", np.zeros(4, bool), "no row has an image"),
    ],
)
def test_what_cannot_be_replayed_is_named(tmp_path: Path, key: str, values: np.ndarray | None, words: str) -> None:
    path = write_episode(tmp_path / "x.hdf5")
    with h5py.File(path, "a") as file:
        file.pop(f"data/demo_0/{key}", None)
        if values is not None:
            file[f"data/demo_0/{key}"] = values
    with hdf5_reader() as reader, pytest.raises(DataError, match=words):
        open_episode(source(path), "demo_0", reader)
