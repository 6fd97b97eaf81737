"""A recorded trial leaves a video and a sheet, with masks, actions and outcome."""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from pokevla.embodiment.libero import LIBERO
from pokevla.evaluation.drawing.lettering import OUTCOME_COLOURS
from pokevla.evaluation.drawing.recorder import Filming, TrialRecorder
from pokevla.evaluation.drawing.videos import read_video
from pokevla.evaluation.running.messages import Query
from pokevla.evaluation.running.watching import Ending
from tests.unit.evaluation.drawing.trials import NAME, TRIAL, chunk, query


def test_recorder_writes_a_playable_video_and_measures_masks(tmp_path: Path) -> None:
    true = np.zeros((2, 31, 33), np.uint8)
    true[0, 5:15, 5:15] = 1
    predicted = np.zeros((2, 31, 33), bool)
    predicted[0, 5:15, 5:10] = True
    recorder = TrialRecorder(tmp_path, TRIAL, Filming(LIBERO, 8, lambda images, proprio, instruction: predicted))
    for step in range(3):
        recorder.see(query(8 * step, true), chunk() if step < 2 else None)
    watched = recorder.finish(Ending("success", 16))
    assert watched["mask_iou"] == 0.5  # the wrist view, empty in both masks, does not count
    assert watched["video"] == f"videos/{NAME}.mp4"
    meta = next(imageio_ffmpeg.read_frames(str(tmp_path / watched["video"])))
    assert (meta["fps"], meta["size"][0]) == (2.5, 516)  # real speed: 20 Hz, 8 actions a query
    assert meta["duration"] == pytest.approx((2 + 4) / 2.5), "the last observation stays for 1.5 s"
    assert (meta["codec"], meta["pix_fmt"].split("(")[0]) == ("h264", "yuv420p")
    assert (tmp_path / "pictures" / f"{NAME}.png").stat().st_size > 1000


def ends_with(frame: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Whether the right end of a frame's last rows has a colour, as exactly as video has it."""
    return bool((np.abs(frame[-12:, -100:].astype(int) - colour) < 24).all())


def test_the_video_ends_with_the_outcome_and_a_crash_follows_what_was_seen_last(tmp_path: Path) -> None:
    frames = {}
    for outcome in ("failure", "crashed"):
        recorder = TrialRecorder(tmp_path / outcome, TRIAL, Filming(LIBERO, 8))
        for step in range(3):
            recorder.see(query(8 * step), chunk())
        watched = recorder.finish(Ending(outcome, 16))
        assert watched["mask_iou"] is None
        frames[outcome], _ = read_video(tmp_path / outcome / str(watched["video"]))
    assert (len(frames["failure"]), len(frames["crashed"])) == (2 + 4, 3 + 4)
    for outcome, shown in frames.items():
        marked = [ends_with(frame, OUTCOME_COLOURS[outcome]) for frame in shown]
        assert marked == [False] * (len(shown) - 4) + [True] * 4


def test_of_the_last_chunk_only_executed_actions_are_on_the_sheet(tmp_path: Path) -> None:
    recorder = TrialRecorder(tmp_path, TRIAL, Filming(LIBERO, 8))
    for step in (0, 8):
        recorder.see(query(step), chunk(length=16))
    assert [step for step, _ in recorder._executed(11)] == [float(step) for step in range(11)]


def test_a_trial_without_observations_leaves_nothing(tmp_path: Path) -> None:
    recorder = TrialRecorder(tmp_path, TRIAL, Filming(LIBERO, 8))
    recorder.see(Query(0, "go", np.zeros(8, np.float32), None, None), chunk())
    assert recorder.finish(Ending("crashed", 0)) == {}
    assert list(tmp_path.iterdir()) == []


def test_files_stay_small(tmp_path: Path) -> None:
    recorder = TrialRecorder(tmp_path, TRIAL, Filming(LIBERO, 8))
    rows, columns = np.mgrid[0:256, 0:256]
    for number in range(28):  # 220 steps
        scene = np.stack([rows // 2, columns // 2, (rows + columns + 8 * number) // 4], axis=-1).astype(np.uint8)
        recorder.see(Query(8 * number, "go", np.zeros(8, np.float32), np.stack([scene, scene]), None), chunk())
    recorder.finish(Ending("failure", 220))
    sizes = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
    assert len(sizes) == 2
    assert max(sizes) < 700_000
