"""Recordings of the toy arm, written once for all tests of a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.recorded.episodes import Recorded, record
from benchmarks.recorded.lerobot import write_lerobot_v3, write_lerobot_v21
from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.recordings.conversion import RecordingSettings, convert_recordings
from pokevla.data.recordings.fields import Options
from pokevla.data.recordings.lerobot.choice import choose
from pokevla.data.recordings.lerobot.metadata import read_metadata
from pokevla.data.recordings.lerobot.source import LeRobotSource

OPTIONS = Options(
    cameras=["base=observation.images.front", "left=observation.images.left", "wrist=observation.images.wrist"],
    state=["joints=observation.state[0:7]@rad", "gripper=observation.state[7:8]"],
    action=["joints=action[0:7]@rad", "gripper=action[7:8]"],
    grippers=["gripper.pos=1,0"],
)
TASKS = ("Pick up the cube", "Push the cube")


@pytest.fixture(scope="session")
def episodes() -> list[Recorded]:
    """Five episodes of different lengths and two tasks."""
    return [record(number, 40 + 3 * number, TASKS[number % 2]) for number in range(5)]


@pytest.fixture(scope="session")
def lerobot_roots(tmp_path_factory: pytest.TempPathFactory, episodes: list[Recorded]) -> dict[str, Path]:
    """The episodes as LeRobot datasets: v2.1 and v3.0, with videos and with images."""
    folder = tmp_path_factory.mktemp("lerobot")
    return {
        "v2.1": write_lerobot_v21(folder / "v21", episodes),
        "v2.1 images": write_lerobot_v21(folder / "v21_images", episodes, "image"),
        "v3.0": write_lerobot_v3(folder / "v3", episodes, per_file=3),
        "v3.0 images": write_lerobot_v3(folder / "v3_images", episodes, "image", per_file=3),
    }


def lerobot_source(root: Path, options: Options = OPTIONS) -> LeRobotSource:
    """A source, with the options of the toy arm."""
    metadata = read_metadata(root)
    return LeRobotSource(metadata, choose(metadata, options, lambda note: None))


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., Dataset]:
    """Converts a LeRobot dataset at 64 pixels in this process, and opens the result."""

    def run(root: Path, out: str = "out", options: Options = OPTIONS, **settings: object) -> Dataset:
        chosen = RecordingSettings(tmp_path / out, **{"image_size": 64, "shard_samples": 64, **settings})  # type: ignore[arg-type]
        return open_dataset(convert_recordings(lerobot_source(root, options), chosen))

    return run
