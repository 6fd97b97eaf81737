from __future__ import annotations

import io
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from benchmarks.recorded.episodes import Recorded, record, shown
from benchmarks.recorded.hdf5 import write_aloha, write_robomimic
from pokevla.cli.main import run
from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.reader import ShardReader
from pokevla.data.recordings.conversion import RecordingSettings, convert_recordings
from pokevla.data.recordings.hdf5.maps import SHIPPED, read_map
from pokevla.data.recordings.hdf5.source import Hdf5Source, find_episodes
from pokevla.errors import DataError, UsageError

OPTIONS = ["--image-size", "64", "--workers", "0", "--task", "Lift the cube"]


def convert(source: Path, out: Path, layout: str, *options: str) -> Dataset:
    assert run(["data", "convert", "hdf5", str(source), str(out), "--map", layout, *OPTIONS, *options]) == 0
    return open_dataset(out)


def frames(dataset: Dataset, view: str) -> list[tuple[int, int, int]]:
    reader = ShardReader(dataset)
    members = (reader.read(row) for row in range(dataset.samples.num_rows))
    return [shown(np.asarray(Image.open(io.BytesIO(each[f"{view}.jpg"])))) for each in members]


@pytest.mark.parametrize("compressed", [False, True])
def test_aloha_files_are_episodes(tmp_path: Path, compressed: bool) -> None:
    episodes = [record(number, 20) for number in range(11)]
    for e in episodes:
        write_aloha(tmp_path / f"source/episode_{e.number}.hdf5", e, compressed)
    dataset = convert(tmp_path / "source", tmp_path / "out", "aloha")
    robot = dataset.embodiment
    assert robot is not None
    assert (robot.name, robot.views) == ("aloha", ("high", "left_wrist", "right_wrist"))
    assert (robot.proprio_width, robot.action_width, robot.control_rate_hz) == (14, 14, 50.0)
    assert [gripper.column for gripper in robot.grippers] == [6, 13]
    assert frames(dataset, "left_wrist") == [(1, e.number, t) for e in by_name(episodes) for t in range(20)]
    assert dataset.episodes is not None
    expected = np.delete(by_name(episodes)[1].action, 6, axis=1)
    assert np.asarray(dataset.episodes["actions"][1].as_py())[:, :7] == pytest.approx(expected)


def by_name(episodes: list[Recorded]) -> list[Recorded]:
    """In the order of their file names, in which episode_10 comes before episode_2."""
    return sorted(episodes, key=lambda e: f"episode_{e.number}.hdf5")


def test_robomimic_groups_are_episodes_with_their_splits(tmp_path: Path) -> None:
    episodes = [record(number, 20) for number in range(11)]
    dataset = convert(write_robomimic(tmp_path / "image.hdf5", episodes), tmp_path / "out", "robomimic")
    assert dataset.episodes is not None
    assert dataset.episodes["split"].to_pylist() == ["train"] * 10 + ["val"]
    assert frames(dataset, "wrist") == [(2, number, t) for number in range(11) for t in range(20)]
    assert dataset.embodiment is not None
    assert dataset.embodiment.control_mode == "delta_end_effector"
    assert "gripper_inverted" not in dataset.info["checks"]


def test_cameras_of_the_map_can_be_replaced(tmp_path: Path) -> None:
    write_aloha(tmp_path / "source/episode_0.hdf5", record(3, 10))
    dataset = convert(
        tmp_path / "source", tmp_path / "out", "aloha", "--camera", "top=observations/images/cam_right_wrist"
    )
    assert dataset.embodiment is not None
    assert dataset.embodiment.views == ("top",)
    assert frames(dataset, "top") == [(2, 3, t) for t in range(10)]


MAP = """
robot: mine
episodes: runs
cameras:
  base: {source: rgb, rotate: 180, colours: bgr}
state: [{name: joints, source: q, columns: [0, 3], unit: deg}]
action: [{name: joints, source: u, columns: [1, 4], unit: deg}]
control_mode: absolute_joint
rate_hz: 10
instruction: {dataset: task}
timestamps: t
"""


@pytest.mark.parametrize("storage", ["pixels", "vlen"])
def test_a_map_of_one_s_own(tmp_path: Path, storage: str) -> None:
    e = record(5, 12)
    layout = tmp_path / "map.yaml"
    layout.write_text(MAP if storage == "pixels" else MAP.replace(", rotate: 180, colours: bgr", ""))
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        group = file.create_group("runs/run_7")
        images = np.stack(e.pictures["left"])
        if storage == "pixels":
            group["rgb"] = images[:, ::-1, ::-1, ::-1]
        else:
            group.create_dataset("rgb", (12,), h5py.vlen_dtype(np.uint8))
            for t, image in enumerate(images):
                buffer = io.BytesIO()
                Image.fromarray(image).save(buffer, "PNG")
                group["rgb"][t] = np.frombuffer(buffer.getvalue(), np.uint8)
        group["q"], group["u"], group["t"] = np.rad2deg(e.state[:, :3]), e.action, np.arange(12) / 10
        group["task"] = "Open the door"
    dataset = convert(tmp_path / "a.hdf5", tmp_path / "out", str(layout))
    assert frames(dataset, "base") == [(1, 5, t) for t in range(12)]
    assert dataset.episodes is not None
    assert dataset.episodes["instruction"].to_pylist() == ["Open the door"]
    assert np.asarray(dataset.episodes["actions"][0].as_py()) == pytest.approx(e.action[:, 1:4])


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_maps_describe_robots(name: str) -> None:
    robot = read_map(name).embodiment()
    assert robot.num_views >= 2
    assert len(robot.action_mask) == robot.action_width


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rate_hz: 10", "rate: 10"), "rate_hz: Field required; rate: Extra inputs are not permitted"),
        (("rotate: 180", "rotate: 45"), r"cameras.base.rotate: Input should be 0, 90, 180 or 270"),
        (("absolute_joint", "joints"), "control_mode: Input should be 'delta_end_effector'"),
        (("columns: [0, 3]", "columns: [0]"), "state.0.columns.1: Field required"),
        (("robot: mine", "robot: [mine"), "not valid YAML"),
    ],
)
def test_a_wrong_map_names_its_field(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(MAP.replace(*change))
    with pytest.raises(DataError, match=message):
        read_map(str(path))


def test_an_unknown_map_is_named() -> None:
    with pytest.raises(UsageError, match=r"--map alhoa: there is no such file, .* Known are aloha, robomimic"):
        read_map("alhoa")


def test_damaged_files_cost_their_episodes_only(tmp_path: Path) -> None:
    for number in range(6):
        write_aloha(tmp_path / f"source/episode_{number}.hdf5", record(number, 15))
    damage = tmp_path / "source/episode_1.hdf5"
    damage.write_bytes(damage.read_bytes()[:-5000])
    (tmp_path / "source/episode_2.hdf5").write_bytes(b"not HDF5")
    with h5py.File(tmp_path / "source/episode_3.hdf5", "a") as file:
        del file["action"]
    with h5py.File(tmp_path / "source/episode_4.hdf5", "a") as file:
        images = file["observations/images/cam_high"][:9]
        del file["observations/images/cam_high"]
        file["observations/images/cam_high"] = images
    words = ["data", "convert", "hdf5", str(tmp_path / "source"), str(tmp_path / "out"), "--map", "aloha", *OPTIONS]
    assert run(words) == 3
    assert run([*words, "--on-fault", "skip", "--max-skipped", "0.9"]) == 0
    dataset = open_dataset(tmp_path / "out")
    assert dataset.info["num_episodes"] == 2
    assert {code: numbers["episodes"] for code, numbers in dataset.info["checks"].items()} == {
        "unreadable": 3, "short_video": 1
    }  # fmt: skip
    report = json.loads((tmp_path / "out/checks.json").read_text())
    reasons = {row["episode"]: row["findings"][-1]["message"] for row in report["found"] if row["left_out"]}
    assert "truncated, or not HDF5" in reasons["episode_1.hdf5"]
    assert "action is missing" in reasons["episode_3.hdf5"]
    assert reasons["episode_4.hdf5"] == "episode_4.hdf5: high ends after 9 of 15 images."


def test_bytes_written_at_random_never_end_the_conversion(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clean = write_aloha(tmp_path / "clean.hdf5", record(0, 8)).read_bytes()
    places = []
    for number in range(12):
        content = bytearray(clean)
        for place in rng.integers(0, 4000 if number % 2 else len(content), 40):
            content[place] = rng.integers(0, 256)
        path = tmp_path / f"source/episode_{number:02d}.hdf5"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        places.append(path)
    write_aloha(tmp_path / "source/episode_99.hdf5", record(1, 8))
    layout = read_map("aloha")
    found = find_episodes([*places, tmp_path / "source/episode_99.hdf5"], layout, 20.0)
    source = Hdf5Source("noise", layout, found, layout.embodiment(), 20.0)
    settings = RecordingSettings(tmp_path / "out", image_size=64, instruction="Lift", on_fault="skip", max_skipped=1.0)
    dataset = open_dataset(convert_recordings(source, settings))
    assert dataset.info["num_episodes"] + len(dataset.info.get("skipped", {})) == 13
    assert "episode_99.hdf5" not in dataset.info.get("skipped", {})
