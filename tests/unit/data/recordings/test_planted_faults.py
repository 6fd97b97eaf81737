"""A LeRobot dataset in which every episode but the first has one fault, planted in its files: each is found by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.recorded.episodes import FPS, Recorded, picture, record, write_video
from benchmarks.recorded.lerobot import write_lerobot_v21
from pokevla.data.dataset import Dataset
from pokevla.data.recordings.faults import REFUSED, WARNED
from pokevla.data.recordings.fields import Options

CAMERA = "observation.images.front"
FRAMES = 75
OPTIONS = Options(
    cameras=[f"base={CAMERA}"],
    state=["joints=observation.state[0:7]@rad", "gripper=observation.state[7:8]"],
    action=["joints=action[0:7]@rad", "gripper=action[7:8]"],
    grippers=["gripper.pos=1,0"],
)


class Files:
    """The files of one episode, for a fault."""

    def __init__(self, root: Path, recorded: Recorded) -> None:
        self.recorded, name = recorded, f"episode_{recorded.number:06d}"
        self.table = root / f"data/chunk-000/{name}.parquet"
        self.video = root / f"videos/chunk-000/{CAMERA}/{name}.mp4"

    def change(self, column: str, change: Callable[[np.ndarray], Any]) -> None:
        """Replace a column by what `change` makes of it."""
        table = pq.read_table(self.table)
        values = change(np.array(table[column].to_pylist()))
        array = pa.array(list(values)) if np.ndim(values) == 2 else pa.array(values)
        pq.write_table(table.set_column(table.column_names.index(column), column, array), self.table)

    def film(self, frames: list[int], height: int = 48, width: int = 64, fps: int = FPS) -> None:
        """Replace the video."""
        write_video(self.video, [picture(0, self.recorded.number, n, height, width) for n in frames], fps)

    def cut(self, path: Path, share: float) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])


def at(rows: slice, columns: slice | int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[rows, columns] = value
        return array

    return change


def _idle(files: Files) -> None:
    def still(array: np.ndarray) -> np.ndarray:
        array[-65:] = array[-65]
        return array

    files.change("observation.state", still)
    files.change("action", still)


def _degrees(files: Files) -> None:
    files.change("observation.state", lambda a: np.concatenate([np.rad2deg(a[:, :7]), a[:, 7:]], axis=1))


def _gap(files: Files) -> None:
    """Three frames are missing from tables and, at the same times, from the video."""
    files.change("timestamp", lambda t: (t + 3 / FPS * (np.arange(len(t)) >= 40)).astype(np.float32))
    files.film([*range(40), *[40] * 3, *range(40, FRAMES)])


def _inverted(action: np.ndarray) -> np.ndarray:
    return np.concatenate([action[:, :7], 1 - action[:, 7:]], axis=1)


def _wild(action: np.ndarray) -> np.ndarray:
    """Four times as far, to both sides in turn."""
    signs = np.where(np.arange(len(action)) % 2, 4, -4)[:, None]
    return np.concatenate([action[:, :7] * signs, action[:, 7:]], axis=1)


FAULTS: dict[str, tuple[str, Callable[[Files], None]]] = {
    "nothing is wrong": ("", lambda f: None),
    "the video is truncated": ("unreadable", lambda f: f.cut(f.video, 0.6)),
    "the video is not one": ("unreadable", lambda f: f.video.write_bytes(b"\0" * 5000)),
    "the video is missing": ("unreadable", lambda f: f.video.unlink()),
    "the table is truncated": ("unreadable", lambda f: f.cut(f.table, 0.5)),
    "the table is missing": ("unreadable", lambda f: f.table.unlink()),
    "the video ends before the table": ("short_video", lambda f: f.film(list(range(FRAMES - 9)))),
    "rows are missing": ("length", lambda f: pq.write_table(pq.read_table(f.table).slice(0, 50), f.table)),
    "a column is missing": ("layout", lambda f: pq.write_table(pq.read_table(f.table).drop(["action"]), f.table)),
    "a column is too narrow": ("layout", lambda f: f.change("action", lambda a: a[:, :5])),
    "a value is missing": ("unreadable", lambda f: f.change("timestamp", lambda t: [None, *t[1:].tolist()])),
    "an action is NaN": ("bad_number", lambda f: f.change("action", at(slice(9, 10), 3, np.nan))),
    "a reading is infinite": ("bad_number", lambda f: f.change("observation.state", at(slice(9, 10), 3, np.inf))),
    "time stands still": ("timestamps", lambda f: f.change("timestamp", lambda t: np.where(t > 1, 1, t))),
    "it has no instruction": ("missing_task", lambda f: None),
    "it has no frame": ("length", lambda f: pq.write_table(pq.read_table(f.table).slice(0, 0), f.table)),
    "frames were dropped": ("dropped_frames", _gap),
    "the table has another rate": ("rate", lambda f: f.change("timestamp", lambda t: (t / 1.25).astype(np.float32))),
    "the camera has another rate": ("camera_rate", lambda f: f.film(list(range(2 * FRAMES)), fps=2 * FPS)),
    "the camera hangs": ("repeated_frames", lambda f: f.film([min(n, 20) if n < 40 else n for n in range(FRAMES)])),
    "a joint is constant": ("frozen_joint", lambda f: f.change("observation.state", at(slice(None), 2, 0.25))),
    "a joint jumps": ("jump", lambda f: f.change("observation.state", at(slice(30, 31), 4, 3.0))),
    "the arm stands still at the end": ("idle_tail", _idle),
    "the state is in degrees": ("degrees", _degrees),
    "the gripper is inverted": ("gripper_inverted", lambda f: f.change("action", _inverted)),
    "the gripper has other commands": ("gripper_range", lambda f: f.change("action", lambda a: a * ([1] * 7 + [50]))),
    "the camera has another resolution": ("other_resolution", lambda f: f.film(list(range(FRAMES)), 96, 128)),
    "its numbers are unlike the others": (
        "outside_quantiles",
        lambda f: f.change("action", _wild),
    ),
}


def plant(root: Path) -> None:
    """Write the dataset with its faults."""
    episodes = [record(number, FRAMES) for number in range(len(FAULTS))]
    for e in episodes:
        e.pictures = {"front": e.pictures["front"]}
    write_lerobot_v21(root, episodes)
    for e, (_, fault) in zip(episodes, FAULTS.values(), strict=True):
        fault(Files(root, e))
    path, names = root / "meta/episodes.jsonl", list(FAULTS)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[names.index("it has no frame")]["length"] = 0
    rows[names.index("it has no instruction")]["tasks"] = []
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = root / f"data/chunk-000/episode_{names.index('it has no instruction'):06d}.parquet"
    pq.write_table(pq.read_table(table).drop(["task_index"]), table)


@pytest.fixture
def found(tmp_path: Path, convert: Callable[..., Dataset]) -> dict[str, tuple[set[str], bool]]:
    """Name of the fault -> codes that were found, and whether the episode was left out."""
    plant(tmp_path / "set")
    dataset = convert(tmp_path / "set", options=OPTIONS, on_fault="skip", max_skipped=0.9, image_size=32)
    report = json.loads((dataset.root / "checks.json").read_text())
    by_episode = {
        row["episode"]: ({finding["code"] for finding in row["findings"]}, row["left_out"]) for row in report["found"]
    }
    return {name: by_episode.get(f"episode {number}", (set(), False)) for number, name in enumerate(FAULTS)}


def test_every_planted_fault_is_found_by_its_code(found: dict[str, tuple[set[str], bool]]) -> None:
    missed = {name: codes for name, (codes, _) in found.items() if FAULTS[name][0] and FAULTS[name][0] not in codes}
    assert missed == {}
    assert found["nothing is wrong"] == (set(), False)
    left_out = {name for name, (_, out) in found.items() if out}
    assert left_out == {name for name, (code, _) in FAULTS.items() if code in REFUSED}


def test_every_code_is_planted_here_or_in_the_tests_of_images_and_processes() -> None:
    planted = {code for code, _ in FAULTS.values()}
    elsewhere = {"crashed", "resolution"}  # test_conversion.py
    assert planted | elsewhere >= REFUSED.keys() | WARNED.keys()
