"""What LeRobot datasets in the wild have besides the usual: paths of images, depth maps, other videos, splits."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.recorded.episodes import FPS, encode_png, picture, record, shown, write_video
from benchmarks.recorded.lerobot import write_lerobot_v3, write_lerobot_v21
from pokevla.cli.main import run
from pokevla.data.dataset import Dataset
from pokevla.data.reader import ShardReader
from pokevla.data.recordings.faults import Fault
from pokevla.data.recordings.fields import Options
from pokevla.data.recordings.lerobot.choice import choose
from pokevla.data.recordings.lerobot.metadata import read_metadata
from pokevla.data.recordings.lerobot.video import video_frames
from pokevla.errors import UsageError
from tests.unit.data.recordings.conftest import OPTIONS

FRONT = "observation.images.front"


def table_of(root: Path, number: int) -> Path:
    return root / f"data/chunk-000/episode_{number:06d}.parquet"


def change_info(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def shown_in(dataset: Dataset, view: str) -> list[tuple[int, int, int]]:
    reader = ShardReader(dataset)
    images = [reader.read(row)[f"{view}.jpg"] for row in range(dataset.samples.num_rows)]
    return [shown(np.asarray(Image.open(io.BytesIO(content)))) for content in images]


def with_paths(root: Path, number: int, paths: list[str | None]) -> None:
    """Store the images of one camera as paths alone, as the recorder has them before it embeds them."""
    table = pq.read_table(table_of(root, number))
    column = pa.array([{"bytes": None, "path": path} for path in paths])
    pq.write_table(table.set_column(table.column_names.index(FRONT), FRONT, column), table_of(root, number))


def test_images_that_lie_beside_the_tables_are_read_by_their_paths(
    tmp_path: Path, convert: Callable[..., Dataset]
) -> None:
    root = write_lerobot_v21(tmp_path / "set", [record(0, 8), record(1, 8)], "image")
    paths = [f"images/{FRONT}/episode_000001/frame_{frame:06d}.png" for frame in range(8)]
    for frame, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(encode_png(picture(0, 1, frame)))
    with_paths(root, 1, list(paths))
    assert shown_in(convert(root), "base") == [(0, number, frame) for number in range(2) for frame in range(8)]
    (root / paths[5]).unlink()
    with pytest.raises(Fault, match=r"frame_000005.png is missing. Copy the images beside") as caught:
        convert(root, "second")
    assert caught.value.code == "unreadable"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../secret.png", "leads out of the dataset"),
        ("/etc/frame.png", "leads out"),
        (None, "neither bytes nor a path"),
    ],
)
def test_a_path_that_cannot_be_followed_is_refused(
    tmp_path: Path, convert: Callable[..., Dataset], path: str | None, message: str
) -> None:
    root = write_lerobot_v21(tmp_path / "set", [record(0, 4)], "image")
    with_paths(root, 0, [path] * 4)
    with pytest.raises(Fault, match=message) as caught:
        convert(root)
    assert caught.value.code == "layout"


def test_a_depth_map_is_left_out_and_said(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "set", [record(0, 4)], "image")
    change_info(root, lambda info: info["features"][FRONT].update(info={"is_depth_map": True}))
    notes: list[str] = []
    selection = choose(read_metadata(root), Options(), notes.append)
    assert [view for view, _ in selection.cameras] == ["left", "wrist"]
    assert f"depth maps are left out: {FRONT}" in notes
    with pytest.raises(UsageError, match=r"front: it is a depth map.* Leave it out; colour cameras are observation.i"):
        choose(read_metadata(root), OPTIONS, notes.append)


def test_images_of_16_bits_are_refused_by_name_whatever_the_metadata_say(
    tmp_path: Path, convert: Callable[..., Dataset]
) -> None:
    root = write_lerobot_v21(tmp_path / "set", [record(0, 4)], "image")
    buffer = io.BytesIO()
    Image.fromarray(np.full((48, 64), 4000, np.uint16)).save(buffer, "PNG")
    table = pq.read_table(table_of(root, 0))
    column = pa.array([{"bytes": buffer.getvalue(), "path": None}] * 4)
    pq.write_table(table.set_column(table.column_names.index(FRONT), FRONT, column), table_of(root, 0))
    with pytest.raises(Fault, match=r"base, frame 0: .* as depth maps have.* Leave this camera out") as caught:
        convert(root)
    assert caught.value.code == "layout"


def test_a_video_of_depth_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "depth.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray16le"
        frame = av.VideoFrame.from_ndarray(np.full((48, 64), 4000, np.uint16), format="gray16le")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(Fault, match=r"depth.mkv has pixels of gray16le, as depth maps have"):
        list(video_frames(path, np.zeros(1), FPS))


def test_cameras_may_differ_in_size(tmp_path: Path, convert: Callable[..., Dataset]) -> None:
    e = record(0, 6)
    e.pictures["wrist"] = [picture(2, 0, frame, 96, 96) for frame in range(6)]
    dataset = convert(write_lerobot_v21(tmp_path / "set", [e]))
    assert shown_in(dataset, "base") == [(0, 0, frame) for frame in range(6)]
    reader = ShardReader(dataset)
    wrist = np.asarray(Image.open(io.BytesIO(reader.read(3)["wrist.jpg"])))
    assert shown(wrist, 96, 96) == (2, 0, 3)
    assert dataset.info["checks"] == {}


@pytest.mark.parametrize("codec", ["libx265", "libvpx-vp9", "mpeg4"])
def test_other_codecs_are_read(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, [picture(1, 2, frame, 64, 64) for frame in range(40)], codec=codec, gop=12)
    found = [shown(image, 64, 64)[2] for image in video_frames(path, np.arange(15, 40) / FPS, FPS)]
    assert found == list(range(15, 40))


def test_a_video_of_variable_rate_is_read_by_its_time_stamps(tmp_path: Path) -> None:
    path, rng = tmp_path / "video.mp4", np.random.default_rng(0)
    ticks = np.cumsum(rng.integers(20, 50, 40))  # milliseconds
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": "12", "bf": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, tick in enumerate(ticks.tolist()):
            frame = av.VideoFrame.from_ndarray(picture(1, 2, number, 64, 64), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    times = ticks / 1000 + rng.uniform(-0.009, 0.009, 40)
    assert [shown(image, 64, 64)[2] for image in video_frames(path, times, FPS)] == list(range(40))


def test_episodes_may_be_listed_in_several_tables(tmp_path: Path, convert: Callable[..., Dataset]) -> None:
    root = write_lerobot_v3(tmp_path / "set", [record(number, 5) for number in range(4)], "image")
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 3), path)
    (root / "meta/episodes/chunk-001").mkdir()
    pq.write_table(table.slice(3), root / "meta/episodes/chunk-001/file-000.parquet")
    assert shown_in(convert(root), "wrist") == [(2, number, frame) for number in range(4) for frame in range(5)]


def test_named_splits_are_kept(tmp_path: Path, convert: Callable[..., Dataset]) -> None:
    root = write_lerobot_v21(tmp_path / "set", [record(number, 4) for number in range(4)], "image")
    change_info(root, lambda info: info.update(splits={"train": "0:2", "validation": "2:3", "extra": "3:4"}))
    dataset = convert(root, val_fraction=0.5)
    assert dataset.episodes is not None
    assert dataset.episodes["split"].to_pylist() == ["train", "train", "val", "train"]


def test_a_command_of_truth_values_is_a_number(tmp_path: Path, convert: Callable[..., Dataset]) -> None:
    root = write_lerobot_v21(tmp_path / "set", [record(0, 6)], "image")
    table = pq.read_table(table_of(root, 0))
    pq.write_table(table.append_column("grasp", pa.array([True, True, False, False, True, False])), table_of(root, 0))
    change_info(root, lambda info: info["features"].update(grasp={"dtype": "bool", "shape": [1], "names": None}))
    options = Options(**{**vars(OPTIONS), "action": ["action[0:7]", "grasp"], "grippers": ["7=0,1"],
                         "control_mode": "absolute_joint"})  # fmt: skip
    dataset = convert(root, options=options)
    assert dataset.episodes is not None
    assert np.asarray(dataset.episodes["actions"][0].as_py())[:, 7].tolist() == [1, 1, 0, 0, 1, 0]


def test_statistics_are_our_own_and_need_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_lerobot_v21(tmp_path / "set", [record(number, 6) for number in range(3)], "image")
    assert not list((root / "meta").glob("*stats*"))
    words = ["--camera", f"base={FRONT}", "--image-size", "32", "--workers", "0"]
    assert run(["data", "convert", "lerobot", str(root), str(tmp_path / "out"), *words]) == 0
    assert run(["data", "stats", str(tmp_path / "out")]) == 0
    assert "q01" in capsys.readouterr().out
