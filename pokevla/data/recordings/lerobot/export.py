"""`pokevla data export lerobot`: a robot dataset in LeRobot's format v3.0.

Layout: huggingface/lerobot, src/lerobot/datasets/utils.py, io_utils.py and dataset_writer.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pokevla.data.dataset import Dataset
from pokevla.data.images.decoding import decode_image
from pokevla.data.reader import ShardReader
from pokevla.data.recordings.lerobot.metadata import DEFAULT_DATA, DEFAULT_VIDEO
from pokevla.data.recordings.lerobot.statistics import ImageMoments, number_statistics
from pokevla.data.recordings.lerobot.video_writer import VideoWriter
from pokevla.embodiment.description import Embodiment, FieldSpec
from pokevla.errors import DataError
from pokevla.files.ownership import refuse_overlap
from pokevla.files.writing import atomic_folder

Images = Literal["video", "image"]
VERSION, CHUNK_FILES = "v3.0", 1000
DATA_FILE_MB, VIDEO_FILE_MB = 100, 200
"""LeRobot's defaults (utils.py). A new file begins with the episode after that size is reached."""
STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."


@dataclass(frozen=True)
class _Rows:
    """One episode: its samples, and its row of the table of episodes."""

    split: str
    rows: range
    instruction: str
    actions: np.ndarray
    proprio: np.ndarray


def export_lerobot(
    dataset: Dataset,
    out: Path,
    images: Images = "video",
    on_episode: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a robot dataset as LeRobot v3.0, and return the folder.

    Actions and proprio stay exactly the same: actions are float32 if all of them are such numbers, otherwise float64.
    `image` keeps the JPEGs byte for byte; `video` encodes them anew (H.264). A split is a range of episodes in the
    format: those of `train` come first, and otherwise the order stays.

    Raises:
        DataError: `out` exists, the dataset has no robot, or lacks images of some frames.
    """
    robot, episodes = dataset.embodiment, dataset.episodes
    if robot is None or episodes is None:
        raise DataError(f"{dataset.root} has no robot: questions cannot be exported.", "Give a robot dataset.")
    refuse_overlap(out, [dataset.root])
    if out.exists():
        raise DataError(f"{out} already exists.", "Remove it, or choose another directory.")
    found = sorted(_episodes(dataset), key=lambda episode: (episode.split != "train", episode.split))
    with atomic_folder(out) as new:
        export = _Export(dataset, robot, new, images, _action_type(found))
        with export.stack:
            for done, episode in enumerate(found, start=1):
                export.add(episode)
                if on_episode is not None:
                    on_episode(done, len(found))
            export.close_files()
        export.write_metadata(found)
    return out


def _episodes(dataset: Dataset) -> Iterator[_Rows]:
    if dataset.episodes is None:
        return
    order = dataset.samples["episode"].to_numpy()
    frames = dataset.samples["frame"].to_numpy()
    columns = ["episode", "split", "length", "instruction", "actions", "proprio"]
    for row in dataset.episodes.select(columns).to_pylist():
        rows = np.flatnonzero(order == row["episode"])
        if not np.array_equal(frames[rows], np.arange(row["length"])) or np.any(np.diff(rows) != 1):
            raise DataError(
                f"{dataset.root}: episode {row['episode']} has images of {len(rows)} of its {row['length']} frames.",
                "Record it with an image of every frame.",
            )
        actions, proprio = np.asarray(row["actions"], np.float64), np.asarray(row["proprio"], np.float32)
        yield _Rows(row["split"], range(int(rows[0]), int(rows[-1]) + 1), row["instruction"], actions, proprio)


def _action_type(episodes: list[_Rows]) -> str:
    """The narrowest type that holds all actions exactly."""
    exact = all(np.array_equal(episode.actions.astype(np.float32), episode.actions) for episode in episodes)
    return "float32" if exact else "float64"


@dataclass
class _Export:
    """The files of an export while it is written."""

    dataset: Dataset
    robot: Embodiment
    root: Path
    images: Images
    action_type: str
    stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self._reader = ShardReader(self.dataset)
        self.stack.callback(self._reader.close)
        self._tasks: dict[str, int] = {}
        self._table: list[dict[str, Any]] = []
        self._moments = {view: ImageMoments() for view in self.robot.views}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._data: pq.ParquetWriter | None = None
        self._videos: dict[str, VideoWriter] = {}
        self._file, self._file_bytes, self._file_frames, self._frames = 0, 0, 0, 0
        self._limit = (VIDEO_FILE_MB if self.images == "video" else DATA_FILE_MB) << 20

    def add(self, episode: _Rows) -> None:
        """Append an episode to the open files."""
        if self._file_bytes > self._limit:
            self.close_files()
            self._file, self._file_bytes, self._file_frames = self._file + 1, 0, 0
        jpegs: dict[str, list[bytes]] = {view: [] for view in self.robot.views}
        for row in episode.rows:
            members = self._reader.read(row)
            for view in self.robot.views:
                self._add_image(view, members[f"{view}.jpg"], jpegs[view], row)
        count = len(episode.rows)
        place = {"chunk_index": self._file // CHUNK_FILES, "file_index": self._file % CHUNK_FILES}
        entry: dict[str, Any] = {
            "episode_index": len(self._table),
            "tasks": [episode.instruction],
            "length": count,
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + count,
            **{f"data/{name}": value for name, value in place.items()},
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        if self.images == "video":
            rate = self.robot.control_rate_hz
            for view in self.robot.views:
                prefix = f"videos/{IMAGES}{view}"
                entry |= {f"{prefix}/{name}": value for name, value in place.items()}
                entry[f"{prefix}/from_timestamp"] = self._file_frames / rate
                entry[f"{prefix}/to_timestamp"] = (self._file_frames + count) / rate
        self._write_rows(episode, jpegs)
        self._table.append(entry)
        self._frames += count
        self._file_frames += count

    def _add_image(self, view: str, jpeg: bytes, jpegs: list[bytes], row: int) -> None:
        sampled = self._moments[view].wants(row)
        if self.images == "image":
            jpegs.append(jpeg)
        if self.images == "video" or sampled or view not in self._sizes:
            pixels = np.asarray(decode_image(jpeg, f"{view} of row {row}"))
            size = (pixels.shape[0], pixels.shape[1])
            if self._sizes.setdefault(view, size) != size:
                raise DataError(f"{self.dataset.root}: images of {view} differ in size: {size}.", "Convert it again.")
            if sampled:
                self._moments[view].add(pixels)
            if self.images == "video":
                self._video(view, size).add(pixels)
        self._file_bytes += len(jpeg)

    def _video(self, view: str, size: tuple[int, int]) -> VideoWriter:
        if view not in self._videos:
            path = self._path(DEFAULT_VIDEO[3], video_key=f"{IMAGES}{view}")
            self._videos[view] = self.stack.enter_context(VideoWriter(path, size, self.robot.control_rate_hz))
        return self._videos[view]

    def _path(self, pattern: str, **names: Any) -> Path:
        place = {"chunk_index": self._file // CHUNK_FILES, "file_index": self._file % CHUNK_FILES}
        path = self.root / pattern.format(**place, **names)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write_rows(self, episode: _Rows, jpegs: dict[str, list[bytes]]) -> None:
        """One row group for the episode, as LeRobot's recorder writes them."""
        count, task = len(episode.rows), self._tasks.setdefault(episode.instruction, len(self._tasks))
        columns: dict[str, Any] = {
            ACTION: _rows(episode.actions.astype(self.action_type)),
            STATE: _rows(episode.proprio),
        }
        if self.images == "image":
            columns |= {
                f"{IMAGES}{view}": pa.array(
                    [{"bytes": jpeg, "path": f"frame-{frame:06d}.jpg"} for frame, jpeg in enumerate(contents)],
                    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
                )
                for view, contents in jpegs.items()
            }
        columns |= {
            "timestamp": (np.arange(count) / self.robot.control_rate_hz).astype(np.float32),
            "frame_index": np.arange(count),
            "episode_index": np.full(count, len(self._table)),
            "index": np.arange(self._frames, self._frames + count),
            "task_index": np.full(count, task),
        }
        table = pa.table(columns)
        if self._data is None:
            self._data = self.stack.enter_context(pq.ParquetWriter(self._path(DEFAULT_DATA[3]), table.schema))
        self._data.write_table(table, row_group_size=count)

    def close_files(self) -> None:
        """Finish the open table and videos."""
        if self._data is not None:
            self._data.close()
        for video in self._videos.values():
            video.close()
        self._data, self._videos = None, {}

    def write_metadata(self, episodes: list[_Rows]) -> None:
        """Write `meta/`."""
        meta = self.root / "meta"
        (meta / "episodes/chunk-000").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._table), meta / "episodes/chunk-000/file-000.parquet")
        pq.write_table(_task_table(list(self._tasks)), meta / "tasks.parquet")
        statistics = {
            ACTION: number_statistics(np.concatenate([episode.actions for episode in episodes])),
            STATE: number_statistics(np.concatenate([episode.proprio for episode in episodes])),
            **{f"{IMAGES}{view}": moments.to_dict() for view, moments in self._moments.items()},
        }
        (meta / "stats.json").write_text(json.dumps(statistics, indent=4) + "\n", encoding="utf-8")
        (meta / "info.json").write_text(json.dumps(self._info(_splits(episodes)), indent=4) + "\n", encoding="utf-8")

    def _info(self, splits: dict[str, str]) -> dict[str, Any]:
        rate = self.robot.control_rate_hz
        return {
            "codebase_version": VERSION,
            "robot_type": self.robot.name,
            "total_episodes": len(self._table),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_FILE_MB,
            "video_files_size_in_mb": VIDEO_FILE_MB,
            "fps": int(rate) if rate == int(rate) else rate,
            "splits": splits,
            "data_path": DEFAULT_DATA[3],
            "video_path": DEFAULT_VIDEO[3] if self.images == "video" else None,
            "features": self._features(),
        }

    def _features(self) -> dict[str, Any]:
        def numbers(fields: tuple[FieldSpec, ...], kind: str) -> dict[str, Any]:
            names = [name for each in fields for name in _column_names(each)]
            return {"dtype": kind, "shape": [len(names)], "names": names}

        cameras = {
            f"{IMAGES}{view}": {
                "dtype": self.images,
                "shape": [*self._sizes[view], 3],
                "names": ["height", "width", "channels"],
                **({"info": VideoWriter.info(self._sizes[view], self.robot.control_rate_hz)}
                   if self.images == "video" else {}),
            }
            for view in self.robot.views
        }  # fmt: skip
        index = {name: {"dtype": "int64", "shape": [1], "names": None}
                 for name in ("frame_index", "episode_index", "index", "task_index")}  # fmt: skip
        return {
            ACTION: numbers(self.robot.action, self.action_type),
            STATE: numbers(self.robot.proprio, "float32"),
            **cameras,
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **index,
        }


def _splits(episodes: list[_Rows]) -> dict[str, str]:
    """First and one past the last episode of each split, written as LeRobot does; the episodes are in that order."""
    names = [episode.split for episode in episodes]
    firsts = {name: names.index(name) for name in dict.fromkeys(names)}
    return {name: f"{first}:{first + names.count(name)}" for name, first in firsts.items()}


def _column_names(spec: FieldSpec) -> list[str]:
    return [spec.name] if spec.size == 1 else [f"{spec.name}_{place}" for place in range(spec.size)]


def _rows(values: np.ndarray) -> pa.Array:
    """(T,D) as a list of D numbers for each row."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def _task_table(tasks: list[str]) -> pa.Table:
    """Tasks with their numbers. They are the index of a pandas table, which the schema says as pandas would."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": tasks})
    columns = [("task_index", "int64", "int64"), ("task", "unicode", "object")]
    described = {
        "index_columns": ["task"],
        "column_indexes": [
            {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
        ],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, kind, numpy in columns
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.3.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(described)})
