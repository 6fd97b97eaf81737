from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.recorded.episodes import FPS, Recorded, picture, record, shown, write_video
from benchmarks.recorded.lerobot import write_lerobot_v3, write_lerobot_v21
from pokevla.cli.main import run
from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.inspection import verify_dataset
from pokevla.data.reader import ShardReader
from pokevla.data.recordings.faults import Fault
from pokevla.data.recordings.fields import Options
from pokevla.data.recordings.lerobot.choice import choose
from pokevla.data.recordings.lerobot.metadata import read_metadata
from pokevla.data.recordings.lerobot.video import video_frames
from pokevla.errors import DataError, UsageError
from tests.unit.data.recordings.conftest import OPTIONS, TASKS, lerobot_source

KINDS = ("v2.1", "v2.1 images", "v3.0", "v3.0 images")


def images_of(reader: ShardReader, row: int) -> dict[str, np.ndarray]:
    members = reader.read(row)
    return {v: np.asarray(Image.open(io.BytesIO(members[f"{v}.jpg"]))) for v in ("base", "left", "wrist")}


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_is_paired_with_its_numbers(
    kind: str, lerobot_roots: dict[str, Path], episodes: list[Recorded], convert: Callable[..., Dataset]
) -> None:
    dataset = convert(lerobot_roots[kind])
    assert dataset.episodes is not None
    assert dataset.samples.num_rows == sum(len(e.times) for e in episodes)
    reader = ShardReader(dataset)
    rows = dataset.samples.select(["episode", "frame"]).to_pylist()
    for row, place in enumerate(rows):
        for camera, image in enumerate(images_of(reader, row).values()):
            assert shown(image) == (camera, place["episode"], place["frame"])
    for episode, stored in zip(episodes, dataset.episodes.to_pylist(), strict=True):
        assert np.array_equal(np.asarray(stored["actions"], np.float32), episode.action)
        assert np.array_equal(np.asarray(stored["proprio"], np.float32), episode.state)
        assert stored["instruction"] == episode.task
    assert verify_dataset(dataset.root) == dataset.samples.num_rows


def test_the_robot_is_described_by_options_and_metadata(
    lerobot_roots: dict[str, Path], convert: Callable[..., Dataset]
) -> None:
    robot = convert(lerobot_roots["v3.0"]).embodiment
    assert robot is not None
    assert (robot.name, robot.views, robot.control_rate_hz) == ("toy_arm", ("base", "left", "wrist"), 30.0)
    assert robot.control_mode == "absolute_joint"  # actions and state have the same names
    assert [(f.name, f.size, f.unit) for f in robot.proprio] == [("joints", 7, "rad"), ("gripper", 1, "1")]
    assert [(g.column, g.open, g.closed) for g in robot.grippers] == [(7, 1.0, 0.0)]
    assert robot.action_mask == (True,) * 7 + (False,)


def test_without_options_everything_is_taken(lerobot_roots: dict[str, Path]) -> None:
    notes: list[str] = []
    selection = choose(read_metadata(lerobot_roots["v2.1"]), Options(), notes.append)
    assert [view for view, _ in selection.cameras] == ["front", "left", "wrist"]
    assert (selection.embodiment.proprio_width, selection.embodiment.action_width) == (8, 8)
    assert any("absolute_joint" in note for note in notes)
    assert any("no --gripper" in note for note in notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": ["base=observation.images.top"]}, "the dataset has no such camera. It has observation.images.f"),
        ({"state": ["joints=observation.pose"]}, "has no such array. It has action, observation.state"),
        ({"state": ["joints=observation.state[0:9]"]}, r"\[0:9\]: it has 8 columns"),
        ({"action": ["a=b=c"]}, "not of the form NAME=SOURCE"),
        ({"grippers": ["7=1"]}, "not of the form COLUMN=OPEN,CLOSED"),
        ({"grippers": ["hand=1,0"]}, "COLUMN is a number below 8, or one of joint_0.pos"),
        ({"control_mode": "joints"}, "--control-mode joints is unknown. Give one of delta_end"),
        ({"state": ["clock=timestamp"]}, "does not say what its actions mean. Give --control-mode"),
    ],
)
def test_a_wrong_option_names_what_there_is(
    changes: dict[str, object], message: str, lerobot_roots: dict[str, Path]
) -> None:
    options = Options(**{**vars(OPTIONS), **changes})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        choose(read_metadata(lerobot_roots["v3.0"]), options, lambda note: None)


@pytest.mark.parametrize("gop", [1, 7, 250])
@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_seeking_gives_exactly_the_frame_of_a_time(tmp_path: Path, gop: int, codec: str) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, [picture(1, 2, frame, 64, 64) for frame in range(60)], codec=codec, gop=gop)
    for start, stop in ((0, 60), (1, 3), (29, 44), (59, 60)):
        times = np.arange(start, stop) / FPS
        found = [shown(image, 64, 64)[2] for image in video_frames(path, times, FPS)]
        assert found == list(range(start, stop))
    float32 = (np.float32(20 / FPS) + np.arange(10).astype(np.float32) / np.float32(FPS)).astype(np.float64)
    assert [shown(image, 64, 64)[2] for image in video_frames(path, float32, FPS)] == list(range(20, 30))


def test_a_video_that_ends_early_is_named(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, [picture(0, 0, frame) for frame in range(20)])
    with pytest.raises(Fault, match=r"video.mp4 has its nearest image at 0.6333 s; image 20 of 25") as caught:
        list(video_frames(path, np.arange(25) / FPS, FPS))
    assert caught.value.code == "short_video"


@pytest.mark.parametrize("cut", [0.02, 0.3, 0.6, 0.97])
def test_a_truncated_video_is_an_error_and_no_image(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "video.mp4"
    rng = np.random.default_rng(0)
    write_video(path, [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(40)])
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content))])
    with pytest.raises(Fault):
        list(video_frames(path, np.arange(40) / FPS, FPS))


def test_damage_inside_a_video_is_never_a_crash_or_a_missing_image(tmp_path: Path) -> None:
    """H.264 has no checksums, so some damage decodes to wrong images; what the decoder notices is an error."""
    path = tmp_path / "video.mp4"
    rng = np.random.default_rng(0)
    write_video(path, [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(40)])
    content = path.read_bytes()
    noticed = 0
    for place in range(10):
        damaged = bytearray(content)
        start = len(content) * (place + 1) // 12
        damaged[start : start + 400] = rng.integers(0, 256, 400, dtype=np.uint8).tobytes()
        path.write_bytes(damaged)
        try:
            assert len(list(video_frames(path, np.arange(40) / FPS, FPS))) == 40
        except Fault as fault:
            noticed += fault.code in ("unreadable", "short_video")
    assert noticed >= 3


def test_what_is_no_lerobot_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"info.json is missing. Give a complete LeRobot dataset"):
        read_metadata(tmp_path)
    root = write_lerobot_v21(tmp_path / "set", [record(0, 5)], "image")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v1.6"}))
    with pytest.raises(DataError, match=r"is of version 'v1.6'"):
        read_metadata(root)
    del info["fps"]
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="is damaged: KeyError\\('fps'\\)"):
        read_metadata(root)


def test_a_path_that_leads_out_of_the_dataset_is_refused(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "set", [record(0, 5)], "image")
    info = json.loads((root / "meta/info.json").read_text())
    info["data_path"] = "../../etc/{episode_index}"
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="leads out of the dataset"):
        read_metadata(root)


def test_a_missing_or_damaged_table_is_a_fault_of_its_episode(tmp_path: Path, convert: Callable[..., Dataset]) -> None:
    root = write_lerobot_v21(tmp_path / "set", [record(n, 20) for n in range(4)], "image")
    (root / "data/chunk-000/episode_000001.parquet").unlink()
    broken = root / "data/chunk-000/episode_000002.parquet"
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(Fault, match=r"episode_000001.parquet is missing"):
        convert(root)
    dataset = convert(root, on_fault="skip")
    assert dataset.info["num_episodes"] == 2
    assert dataset.info["checks"]["unreadable"] == {"episodes": 2, "count": 2}
    assert set(dataset.info["skipped"]) == {"episode 1", "episode 2"}


def test_rows_that_the_metadata_do_not_list_are_noticed(tmp_path: Path, convert: Callable[..., Dataset]) -> None:
    root = write_lerobot_v3(tmp_path / "set", [record(n, 20) for n in range(2)], "image")
    path = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 38), path)
    with pytest.raises(Fault, match=r"episode 1: .* has 18 rows, the metadata say 20"):
        convert(root)


def test_a_hub_name_without_network_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert run(["data", "convert", "lerobot", "my-lab/cubes", "out"]) == 3
    error = capsys.readouterr().err
    assert "my-lab/cubes is not a folder here, and cannot be downloaded from the Hugging Face hub" in error
    assert error.count("\n") == 1
    assert run(["data", "convert", "lerobot", "/no/such/folder", "out"]) == 3
    assert "/no/such/folder: no such folder" in capsys.readouterr().err


def test_the_command_line_converts_with_processes(
    tmp_path: Path, lerobot_roots: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--camera", "base=observation.images.front", "--gripper", "gripper.pos=1,0", "--image-size", "64"]
    words += ["--state", "joints=observation.state[0:7]@rad", "--val-fraction", "0.2", "--workers", "2"]
    assert run(["data", "convert", "lerobot", str(lerobot_roots["v3.0"]), str(out), *words]) == 0
    assert "5 episodes, 230 samples, 1 shards, base.jpg, json" in capsys.readouterr().out
    dataset = open_dataset(out)
    assert dataset.episodes is not None
    assert dataset.episodes["split"].to_pylist() == ["train"] * 4 + ["val"]
    assert set(dataset.episodes["instruction"].to_pylist()) == set(TASKS)
    assert run(["data", "convert", "lerobot", str(lerobot_roots["v3.0"]), str(out), *words]) == 3
    assert "already exists" in capsys.readouterr().err
    assert run(["data", "convert", "lerobot", str(lerobot_roots["v3.0"]), str(out), *words, "--overwrite"]) == 0


def test_a_slice_is_converted_from_the_command_line(
    tmp_path: Path, lerobot_roots: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "convert", "lerobot", str(lerobot_roots["v2.1 images"]), str(tmp_path / "out")]
    command += ["--camera", "base=observation.images.front", "--image-size", "32", "--workers", "0"]
    for number in (0, 1):
        assert run([*command, "--slice", f"{number}/2"]) == 0
    assert "slice 1/2: 2 episodes are ready" in capsys.readouterr().out
    assert run([*command, "--slice", "2"]) == 2
    assert "--slice 2: not of the form I/N" in capsys.readouterr().err
    assert run(command) == 0
    assert "5 episodes, 230 samples" in capsys.readouterr().out


def test_a_downloaded_copy_is_called_as_on_the_hub(tmp_path: Path) -> None:
    copy = tmp_path / "datasets--my-lab--cubes/snapshots/0123abcd"
    write_lerobot_v21(copy, [record(0, 5)], "image")
    assert lerobot_source(copy).name == "cubes"


def test_an_episode_that_is_read_alone_is_the_same(lerobot_roots: dict[str, Path], episodes: list[Recorded]) -> None:
    source = lerobot_source(lerobot_roots["v3.0"])
    with source.opened() as read:
        episode = read(4)
        frames = [shown(image)[1:] for image in episode.frames["wrist"]]  # type: ignore[arg-type]
    assert frames == [(4, frame) for frame in range(len(episodes[4].times))]
    assert episode.timestamps == pytest.approx(episodes[4].times, abs=1e-6)
