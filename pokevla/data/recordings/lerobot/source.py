"""Episodes of a LeRobot dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pokevla.data.recordings.episode import Episode, Frame, ReadEpisode
from pokevla.data.recordings.faults import Fault
from pokevla.data.recordings.fields import Selection, gather
from pokevla.data.recordings.lerobot.metadata import EpisodeEntry, Metadata
from pokevla.data.recordings.lerobot.video import import_av, video_frames, video_rate
from pokevla.data.sources.provenance import source_entry
from pokevla.embodiment.description import Embodiment
from pokevla.files.labels import lies_within
from pokevla.files.texts import read_bytes

_BATCH_ROWS = 32
_INDEX, _TIME, _TASK = "episode_index", "timestamp", "task_index"


@dataclass(frozen=True)
class LeRobotSource:
    """A dataset in a local folder, and what is taken of it."""

    metadata: Metadata
    selection: Selection

    @property
    def name(self) -> str:
        """The folder's name, or that on the hub of a downloaded copy (`datasets--ORG--NAME/snapshots/COMMIT`)."""
        root = self.metadata.root
        if root.parent.name == "snapshots":
            return root.parent.parent.name.split("--")[-1]
        return root.name

    @property
    def embodiment(self) -> Embodiment:
        """The robot."""
        return self.selection.embodiment

    @property
    def num_episodes(self) -> int:
        """Episodes that the metadata list."""
        return len(self.metadata.episodes)

    def episode_name(self, number: int) -> str:
        """`episode 3`."""
        return f"episode {self.metadata.episodes[number].index}"

    def identity(self) -> dict[str, Any]:
        """What is taken of which dataset."""
        choice = self.selection
        fields = [vars(field) for field in (*choice.state, *choice.action)]
        return {"lerobot": str(self.metadata.root.resolve()), "cameras": choice.cameras, "fields": fields}

    def episode_identity(self, number: int) -> Any:
        """Its metadata, and sizes and times of its files."""
        entry = self.metadata.episodes[number]
        places = [entry.videos[camera] for _, camera in self.selection.cameras if camera in entry.videos]
        paths = [entry.data, *(place.path for place in places)]
        return [entry.index, entry.length, list(entry.tasks), [place.start_s for place in places],
                [_stamp(self.metadata.root / path) for path in paths]]  # fmt: skip

    def provenance(self) -> list[dict[str, Any]]:
        """The dataset, by its `info.json`."""
        info = self.metadata.root / "meta" / "info.json"
        facts = {"format": f"lerobot {self.metadata.version}", "robot_type": self.metadata.robot_type}
        return [source_entry(info, dataset=self.name, episodes=self.num_episodes, **facts)]

    @contextmanager
    def opened(self) -> Iterator[ReadEpisode]:
        """Files are opened for each episode."""
        if any(self.metadata.is_video(camera) for _, camera in self.selection.cameras):
            import_av()
        yield self._read

    def _read(self, number: int) -> Episode:
        entry, name = self.metadata.episodes[number], self.episode_name(number)
        path = self.metadata.root / entry.data
        with _reading(path):
            rows = _rows_of(path, entry.index)
            table = _numbers(path, rows, (*self.selection.sources, _TIME, _TASK))
        if not rows and not entry.length:
            raise Fault("length", f"{name} has no frame.")
        if len(rows) != entry.length:
            raise Fault("length", f"{name}: {path} has {len(rows)} rows, the metadata say {entry.length}.")
        times = table[_TIME].astype(np.float64) if _TIME in table else np.arange(len(rows)) / self.metadata.fps
        arrays = {source: _matrix(table.get(source), f"{name}: {path}: {source}") for source in self.selection.sources}
        frames, rates = {}, {}
        for view, camera in self.selection.cameras:
            if camera in entry.videos:
                video = self.metadata.root / entry.videos[camera].path
                rate = video_rate(video)
                if rate is not None:
                    rates[view] = rate
                frames[view] = video_frames(video, entry.videos[camera].start_s + times.reshape(-1), self.metadata.fps)
            else:
                frames[view] = _images(self.metadata.root, path, rows, camera, f"{name}: {view}")
        return Episode(
            instruction=self._instruction(entry, table.get(_TASK)),
            actions=gather(self.selection.action, arrays),
            proprio=gather(self.selection.state, arrays),
            frames=frames,
            timestamps=times.reshape(-1),
            camera_rates=rates,
            split=self.metadata.split_of(entry.index),
        )

    def _instruction(self, entry: EpisodeEntry, numbers: np.ndarray | None) -> str:
        """The task of the first frame; an episode's tasks are a set without order."""
        if numbers is not None and len(numbers):
            text = self.metadata.tasks.get(int(numbers.reshape(-1)[0]))
            if text is not None:
                return text
        return entry.tasks[0] if entry.tasks else ""


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise Fault("unreadable", f"{path} cannot be read ({error}).", "Download or record it again.") from error


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _rows_of(path: Path, index: int) -> range:
    """Rows of an episode in a file; they follow each other."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    column = pq.read_table(path, columns=[_INDEX])[_INDEX].to_numpy()
    found = np.flatnonzero(column == index)
    if len(found) and found[-1] - found[0] + 1 != len(found):
        raise ValueError(f"the rows of episode {index} are not together")
    return range(int(found[0]), int(found[-1]) + 1) if len(found) else range(0)


def _batches(path: Path, rows: range, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The given rows of a file; only row groups that hold some are read."""
    with pq.ParquetFile(path) as file:
        start = 0
        for group in range(file.metadata.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            if stop > rows.start and start < rows.stop:
                place = start
                for batch in file.iter_batches(batch_rows, row_groups=[group], columns=columns):
                    low, high = max(rows.start - place, 0), min(rows.stop - place, batch.num_rows)
                    if low < high:
                        yield batch.slice(low, high - low)
                    place += batch.num_rows
            start = stop


def _numbers(path: Path, rows: range, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Columns of numbers by name, (T,) or (T,D); those that the file lacks are left out."""
    schema = pq.read_schema(path)
    present = [name for name in dict.fromkeys(names) if name in schema.names]
    batches = list(_batches(path, rows, present, 1 << 16))
    table = pa.Table.from_batches(batches, schema=batches[0].schema if batches else pa.schema([]))
    return {name: _array(table[name].combine_chunks()) for name in present if batches}


def _array(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    if isinstance(column, pa.ChunkedArray):  # combine_chunks of several chunks
        column = pa.concat_arrays(column.chunks)
    if column.null_count:
        raise ValueError("a value is missing")
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        values = column.flatten().to_numpy(zero_copy_only=False)
        if len(values) % max(len(column), 1):
            raise ValueError("rows differ in length")
        return values.reshape(len(column), -1)
    return column.to_numpy(zero_copy_only=False)


def _matrix(values: np.ndarray | None, what: str) -> np.ndarray:
    if values is None:
        raise Fault("layout", f"{what} is missing.")
    if values.dtype.kind not in "biuf":
        raise Fault("layout", f"{what} does not hold numbers.")
    return values.reshape(len(values), -1)


def _images(root: Path, path: Path, rows: range, camera: str, what: str) -> Iterator[Frame]:
    """Images of a table: each row has the bytes of a JPEG or PNG, or the path of its file in the dataset, or both
    (datasets.Image)."""
    with _reading(path):
        for batch in _batches(path, rows, [camera], _BATCH_ROWS):
            for value in batch.column(0).to_pylist():
                content, file = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
                if isinstance(content, str):
                    content, file = None, content
                if not isinstance(content, bytes) and isinstance(file, str):
                    content = _image_file(root, file, what)
                if not isinstance(content, bytes):
                    raise Fault("layout", f"{what}: {path} holds neither bytes nor a path in {camera}.")
                yield content


def _image_file(root: Path, relative: str, what: str) -> bytes:
    if not lies_within(relative):
        raise Fault("layout", f"{what}: the path {relative} leads out of the dataset.", "Give paths relative to it.")
    return read_bytes(root / relative, remedy="Copy the images beside the tables.")
