from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.recorded.episodes import shown
from pokevla.cli.main import run
from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.reader import ShardReader
from pokevla.data.recordings.conversion import RecordingSettings, convert_recordings
from pokevla.data.recordings.fields import Options
from pokevla.data.recordings.lerobot import export
from pokevla.data.recordings.lerobot.choice import choose
from pokevla.data.recordings.lerobot.export import export_lerobot
from pokevla.data.recordings.lerobot.metadata import read_metadata
from pokevla.data.recordings.lerobot.source import LeRobotSource
from pokevla.errors import DataError
from tests.toys import write_toy_dataset, write_toy_questions

BACK = Options(
    state=["joints=observation.state[0:7]@rad", "gripper=observation.state[7:8]"],
    action=["joints=action[0:7]@rad", "gripper=action[7:8]"],
    grippers=["gripper=1,0"],
)


def back(root: Path, out: Path, options: Options, size: int) -> Dataset:
    """A LeRobot dataset converted to ours."""
    metadata = read_metadata(root)
    source = LeRobotSource(metadata, choose(metadata, options, lambda note: None))
    return open_dataset(convert_recordings(source, RecordingSettings(out, image_size=size)))


def rows_of(dataset: Dataset, column: str) -> list[np.ndarray]:
    assert dataset.episodes is not None
    return [np.asarray(row) for row in dataset.episodes[column].to_pylist()]


def shown_in(dataset: Dataset) -> list[tuple[int, int, int]]:
    import io

    from PIL import Image

    reader = ShardReader(dataset)
    members = [reader.read(row) for row in range(dataset.samples.num_rows)]
    return [
        shown(np.asarray(Image.open(io.BytesIO(each[f"{view}.jpg"]))))
        for each in members
        for view in ("base", "left", "wrist")
    ]


@pytest.mark.parametrize("images", ["image", "video"])
def test_what_is_exported_comes_back(
    tmp_path: Path, images: str, lerobot_roots: dict[str, Path], convert: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ours = convert(lerobot_roots["v3.0"])
    monkeypatch.setattr(export, "VIDEO_FILE_MB", 0)  # each episode begins new files
    monkeypatch.setattr(export, "DATA_FILE_MB", 0)
    root = export_lerobot(ours, tmp_path / "exported", images)  # type: ignore[arg-type]
    assert len(list((root / "data").rglob("*.parquet"))) == 5
    again = back(root, tmp_path / "again", BACK, 64)
    for column in ("actions", "proprio"):
        for one, other in zip(rows_of(ours, column), rows_of(again, column), strict=True):
            assert np.array_equal(one, other)
    assert again.embodiment == ours.embodiment
    assert again.episodes is not None
    assert ours.episodes is not None
    assert again.episodes["instruction"].to_pylist() == ours.episodes["instruction"].to_pylist()
    assert shown_in(again) == shown_in(ours)
    if images == "image":  # the JPEGs stay the same
        one, other = ShardReader(ours).read(7), ShardReader(again).read(7)
        assert {name: one[name] for name in one if name != "json"} == {n: other[n] for n in other if n != "json"}


def test_several_episodes_share_a_file_and_are_found_in_it(
    tmp_path: Path, lerobot_roots: dict[str, Path], convert: Callable[..., Dataset]
) -> None:
    ours = convert(lerobot_roots["v2.1"])
    out = tmp_path / "exported"
    assert run(["data", "export", "lerobot", str(ours.root), str(out)]) == 0
    assert len(list(out.rglob("*.mp4"))) == 3
    assert shown_in(back(out, tmp_path / "again", BACK, 64)) == shown_in(ours)


def test_numbers_that_float32_lacks_are_kept(tmp_path: Path) -> None:
    ours = open_dataset(write_toy_dataset(tmp_path / "toy", episodes=3))
    root = export_lerobot(ours, tmp_path / "exported")
    info = json.loads((root / "meta/info.json").read_text())
    assert info["features"]["action"]["dtype"] == "float64"
    assert info["features"]["action"]["names"][:4] == ["position_0", "position_1", "position_2", "rotation_0"]
    options = Options(grippers=["gripper=-1,1"], control_mode="delta_end_effector")
    again = back(root, tmp_path / "again", options, 32)
    for one, other in zip(rows_of(ours, "actions"), rows_of(again, "actions"), strict=True):
        assert np.array_equal(one, other)


def test_the_statistics_are_those_of_the_data(tmp_path: Path) -> None:
    ours = open_dataset(write_toy_dataset(tmp_path / "toy", episodes=3))
    root = export_lerobot(ours, tmp_path / "exported", "image")
    stats = json.loads((root / "meta/stats.json").read_text())
    proprio = np.concatenate(rows_of(ours, "proprio"))
    assert stats["observation.state"]["mean"] == pytest.approx(proprio.mean(axis=0), abs=1e-6)
    assert stats["observation.state"]["q99"] == pytest.approx(np.quantile(proprio, 0.99, axis=0), abs=1e-6)
    mean = np.asarray(stats["observation.images.base"]["mean"])
    assert mean.shape == (3, 1, 1)
    assert ((mean > 0) & (mean < 1)).all()


def test_the_table_of_tasks_says_its_index_as_pandas_does(
    tmp_path: Path, lerobot_roots: dict[str, Path], convert: Callable[..., Dataset]
) -> None:
    root = export_lerobot(convert(lerobot_roots["v2.1 images"]), tmp_path / "exported", "image")
    table = pq.read_table(root / "meta/tasks.parquet")
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert table.to_pylist() == [
        {"task_index": 0, "task": "Pick up the cube"},
        {"task_index": 1, "task": "Push the cube"},
    ]


def test_what_cannot_be_exported_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = write_toy_questions(tmp_path / "questions", 10)
    assert run(["data", "export", "lerobot", str(questions), str(tmp_path / "out")]) == 3
    assert "has no robot" in capsys.readouterr().err
    toy = write_toy_dataset(tmp_path / "toy", episodes=3)
    assert run(["data", "export", "lerobot", str(toy), str(toy / "out")]) == 2
    (tmp_path / "there").mkdir()
    assert run(["data", "export", "lerobot", str(toy), str(tmp_path / "there")]) == 3
    assert "there already exists" in capsys.readouterr().err
    assert run(["data", "export", "lerobot", str(toy), str(tmp_path / "out")]) == 0
    assert "masks have no place" in capsys.readouterr().err


def test_frames_without_an_image_are_refused(tmp_path: Path, robot_dataset: Callable[..., Path]) -> None:
    sparse = open_dataset(robot_dataset(stride=2))
    with pytest.raises(DataError, match=r"episode 0 has images of \d+ of its 18 frames"):
        export_lerobot(sparse, tmp_path / "out")
    assert not (tmp_path / "out").exists()
