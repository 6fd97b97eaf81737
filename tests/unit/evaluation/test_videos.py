from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from pokevla.errors import DataError, DiskFullError
from pokevla.evaluation.running.messages import Query
from pokevla.evaluation.videos import TrialRecorder, write_video


def query(step: int, masks: np.ndarray | None) -> Query:
    images = np.random.default_rng(step).integers(0, 255, (2, 31, 33, 3), dtype=np.uint8)
    return Query(step, "pick", np.zeros(8, np.float32), images, masks)


def test_recorder_writes_a_playable_video_and_measures_masks(tmp_path) -> None:
    true = np.zeros((2, 31, 33), np.uint8)
    true[0, 5:15, 5:15] = 1
    predicted = np.zeros((2, 31, 33), bool)
    predicted[0, 5:15, 5:10] = True
    recorder = TrialRecorder(tmp_path, "trained-t3-i30", lambda images, proprio, instruction: predicted, 2.5)
    for step in range(3):
        recorder.see(query(8 * step, true))
    watched = recorder.finish()
    video, iou = watched["video"], watched["mask_iou"]
    assert iou == 0.5  # the wrist view, empty in both masks, does not count
    assert video == "videos/trained-t3-i30.mp4"
    meta = next(imageio_ffmpeg.read_frames(str(tmp_path / video)))
    assert (meta["fps"], meta["duration"]) == (2.5, pytest.approx(3 / 2.5))  # real speed: 20 Hz, 8 actions a query
    assert (meta["codec"], meta["pix_fmt"].split("(")[0]) == ("h264", "yuv420p")
    assert (tmp_path / "pictures" / "trained-t3-i30.png").stat().st_size > 1000


def test_a_trial_without_observations_leaves_nothing(tmp_path) -> None:
    assert TrialRecorder(tmp_path, "x", None, 2.5).finish() == {}
    assert list(tmp_path.iterdir()) == []


NOISE = [np.random.default_rng(n).integers(0, 255, (240, 320, 3), dtype=np.uint8) for n in range(6)]
"""Frames that no codec makes small: about 300 KB of video."""


def test_a_disk_that_is_full_is_told_as_such_and_leaves_no_video(small_disk: Path, capfd) -> None:
    with pytest.raises(DiskFullError, match=r"No room to write .*trial\.mp4 \("):
        write_video(small_disk / "trial.mp4", NOISE, 3)
    assert list(small_disk.iterdir()) == []
    assert capfd.readouterr().err == "", "ffmpeg's own words belong into the error"


def test_a_video_that_may_not_grow_leaves_the_old_one_as_it_was(
    tmp_path: Path, room_for: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "trial.mp4"
    write_video(path, NOISE[:1], 3)
    before = path.read_bytes()
    with room_for(20_000), pytest.raises(DiskFullError):
        write_video(path, NOISE, 3)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_ffmpeg_refuses_is_an_error_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Cannot write"):
        write_video(tmp_path / "trial.unknown", NOISE[:1], 3)
    assert list(tmp_path.iterdir()) == []
