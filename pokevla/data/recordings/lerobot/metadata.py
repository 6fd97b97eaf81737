"""Metadata of a LeRobot dataset, v2.0, v2.1 and v3.0.

Layouts: huggingface/lerobot, src/lerobot/datasets/utils.py and src/lerobot/scripts/convert_dataset_v21_to_v30.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pokevla.data.recordings.fields import Column
from pokevla.errors import DataError
from pokevla.files.labels import lies_within
from pokevla.files.texts import parse_json, read_json, read_text

REMEDY = "Give a complete LeRobot dataset of format v2.0, v2.1 or v3.0."
DEFAULT_DATA = {
    2: "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    3: "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
DEFAULT_VIDEO = {
    2: "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    3: "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
_MAX_LINES = 4 << 30


@dataclass(frozen=True)
class VideoPlace:
    """Where the images of one camera in one episode are."""

    path: Path
    start_s: float
    """Time in the video of the episode's time 0."""


@dataclass(frozen=True)
class EpisodeEntry:
    """What the metadata say about one episode."""

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    """Parquet file, relative to the dataset."""
    videos: dict[str, VideoPlace] = field(default_factory=dict)
    """Camera -> place; paths are relative to the dataset."""


@dataclass(frozen=True)
class Metadata:
    """A LeRobot dataset without its frames."""

    root: Path
    version: str
    robot_type: str
    fps: float
    features: dict[str, dict[str, Any]]
    tasks: dict[int, str]
    episodes: tuple[EpisodeEntry, ...]
    splits: tuple[tuple[str, range], ...] = ()
    """Named ranges of episode numbers."""

    @property
    def cameras(self) -> list[str]:
        """Features that are colour images, in order."""
        return [name for name in self._images if not _depth(self.features[name])]

    @property
    def depth_maps(self) -> list[str]:
        """Features that are depth maps, in order. Policies do not see them."""
        return [name for name in self._images if _depth(self.features[name])]

    @property
    def _images(self) -> list[str]:
        return [name for name, each in self.features.items() if each["dtype"] in ("video", "image")]

    def split_of(self, index: int) -> str | None:
        """`train` or `val`; None if the dataset is not split, as most are: all episodes are `train`. What is named
        after validation, test or evaluation is `val`."""
        if len(self.splits) < 2:
            return None
        names = [name for name, numbers in self.splits if index in numbers]
        return "val" if any(name.startswith(("val", "test", "eval")) for name in names) else "train"

    def is_video(self, camera: str) -> bool:
        """Whether a camera's images are in videos, not in the tables."""
        return self.features[camera]["dtype"] == "video"

    def columns(self) -> dict[str, Column]:
        """What is said about every array of numbers with one axis."""
        found = {}
        for name, each in self.features.items():
            shape = each.get("shape") or [1]
            if str(each["dtype"]).startswith(("float", "int", "uint", "bool")) and len(shape) == 1:
                found[name] = Column(int(shape[0]), _names(each.get("names")), _unit(each))
        return found


def read_metadata(root: Path) -> Metadata:
    """Read `meta/`.

    Raises:
        DataError: it is not a LeRobot dataset, of another version, incomplete or damaged. Names the file.
    """
    path = root / "meta" / "info.json"
    info = read_json(path, remedy=REMEDY)
    version = info.get("codebase_version") if isinstance(info, dict) else None
    match = re.fullmatch(r"v([23])\.\d+", version) if isinstance(version, str) else None
    if match is None:
        raise DataError(f"{path} is of version {version!r}.", REMEDY)
    major = int(match[1])
    try:
        features = {str(name): dict(each) for name, each in info["features"].items()}
        cameras = [name for name, each in features.items() if each["dtype"] == "video" and not _depth(each)]
        layout = _Layout(
            root, major, str(info.get("data_path") or DEFAULT_DATA[major]),
            str(info.get("video_path") or DEFAULT_VIDEO[major]), int(info.get("chunks_size", 1000)), cameras,
        )  # fmt: skip
        fps = float(info["fps"])
        episodes = tuple(layout.episodes_of_v2() if major == 2 else layout.episodes_of_v3())
        tasks = _tasks_of_v2(root) if major == 2 else _tasks_of_v3(root)
        splits = tuple((str(name), _range(text)) for name, text in (info.get("splits") or {}).items())
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{root / 'meta'} is damaged: {error!r}.", REMEDY) from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{root / 'meta'} cannot be read ({error}).", REMEDY) from error
    if not fps > 0 or not episodes:
        raise DataError(f"{path}: {fps:g} frames per second, {len(episodes)} episodes.", REMEDY)
    return Metadata(root, str(version), str(info.get("robot_type") or "robot"), fps, features, tasks, episodes, splits)


@dataclass(frozen=True)
class _Layout:
    root: Path
    major: int
    data_path: str
    video_path: str
    chunks_size: int
    cameras: list[str]

    def episodes_of_v2(self) -> Iterator[EpisodeEntry]:
        """One parquet file and one video per camera for each episode."""
        for row in sorted(_json_lines(self.root / "meta" / "episodes.jsonl"), key=lambda row: row["episode_index"]):
            index = int(row["episode_index"])
            names = {"episode_chunk": index // self.chunks_size, "episode_index": index}
            videos = {
                camera: VideoPlace(self._inside(self.video_path, video_key=camera, **names), 0.0)
                for camera in self.cameras
            }
            tasks = tuple(str(task) for task in row.get("tasks") or ())
            yield EpisodeEntry(index, int(row["length"]), tasks, self._inside(self.data_path, **names), videos)

    def episodes_of_v3(self) -> Iterator[EpisodeEntry]:
        """Files with several episodes each; the tables in `meta/episodes` say where each one is."""
        prefixes = {camera: f"videos/{camera}" for camera in self.cameras}
        columns = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
        columns += [
            f"{prefix}/{name}"
            for prefix in prefixes.values()
            for name in ("chunk_index", "file_index", "from_timestamp")
        ]
        rows: list[dict[str, Any]] = []
        for path in sorted((self.root / "meta" / "episodes").glob("*/*.parquet")):
            rows += pq.read_table(path, columns=columns).to_pylist()
        for row in sorted(rows, key=lambda row: row["episode_index"]):
            videos = {
                camera: VideoPlace(
                    self._inside(
                        self.video_path,
                        video_key=camera,
                        chunk_index=int(row[f"{prefix}/chunk_index"]),
                        file_index=int(row[f"{prefix}/file_index"]),
                    ),
                    float(row[f"{prefix}/from_timestamp"]),
                )
                for camera, prefix in prefixes.items()
            }
            data = self._inside(
                self.data_path, chunk_index=int(row["data/chunk_index"]), file_index=int(row["data/file_index"])
            )
            tasks = tuple(str(task) for task in row["tasks"] or ())
            yield EpisodeEntry(int(row["episode_index"]), int(row["length"]), tasks, data, videos)

    def _inside(self, pattern: str, **names: Any) -> Path:
        relative = pattern.format(**names)
        if not lies_within(relative):
            raise ValueError(f"the path {relative} leads out of the dataset")
        return Path(relative)


def _tasks_of_v2(root: Path) -> dict[int, str]:
    path = root / "meta" / "tasks.jsonl"
    if not path.exists():
        return {}
    return {int(row["task_index"]): str(row["task"]) for row in _json_lines(path)}


def _tasks_of_v3(root: Path) -> dict[int, str]:
    """The tasks are the index of a pandas table, whose column is called `task` or `__index_level_0__`."""
    path = root / "meta" / "tasks.parquet"
    if not path.exists():
        return {}
    table = pq.read_table(path)
    texts = [name for name in table.column_names if name != "task_index"]
    if len(texts) != 1:
        raise ValueError(f"{path} has the columns {', '.join(table.column_names)}")
    return dict(zip(table["task_index"].to_pylist(), map(str, table[texts[0]].to_pylist()), strict=True))


def _json_lines(path: Path) -> list[dict[str, Any]]:
    lines = read_text(path, max_bytes=_MAX_LINES, remedy=REMEDY).splitlines()
    return [parse_json(line, f"{path}:{number}", remedy=REMEDY) for number, line in enumerate(lines, 1) if line.strip()]


def _range(text: Any) -> range:
    """Episodes of a split, written `0:40`."""
    start, _, stop = str(text).partition(":")
    return range(int(start or 0), int(stop))


def _depth(feature: dict[str, Any]) -> bool:
    infos = [feature.get("info") or {}, feature.get("video_info") or {}]
    return any(bool(info.get("is_depth_map") or info.get("video.is_depth_map")) for info in infos)


def _names(names: Any) -> tuple[str, ...]:
    """Names of columns, which LeRobot stores as a list or as one list in a mapping (`{"motors": [...]}`)."""
    if isinstance(names, dict):
        lists = [value for value in names.values() if isinstance(value, list)]
        names = [name for value in lists for name in value]
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _unit(feature: dict[str, Any]) -> str | None:
    """Unit of an array. The format has no field for it; some recorders add one."""
    unit = feature.get("unit") or (feature.get("info") or {}).get("unit")
    return unit if isinstance(unit, str) and unit else None
