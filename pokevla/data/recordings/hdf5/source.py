"""Episodes in HDF5 files, read through a child process: damaged files cannot crash the conversion (`files.foreign`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.data.recordings.episode import Episode, Frame, ReadEpisode
from pokevla.data.recordings.faults import Fault
from pokevla.data.recordings.fields import gather
from pokevla.data.recordings.hdf5.maps import CameraMap, Hdf5Map, field_sources
from pokevla.embodiment.description import Embodiment
from pokevla.errors import DataError
from pokevla.files.foreign.hdf5 import Hdf5File, hdf5_reader
from pokevla.files.foreign.process import ForeignReader

REMEDY = "Give a complete, readable file, or correct the map."
BLOCK_BYTES = 16 << 20
"""Images of one camera that are read at once."""


@dataclass(frozen=True)
class Place:
    """Where an episode is."""

    path: Path
    group: str
    """Empty: the whole file."""
    split: str | None = None
    damage: str | None = None
    """Why the episodes of the file cannot even be listed."""


@dataclass(frozen=True)
class Hdf5Source:
    """Episodes of some files, laid out as a map says."""

    name: str
    layout: Hdf5Map
    places: tuple[Place, ...]
    embodiment: Embodiment
    read_timeout_s: float

    @property
    def num_episodes(self) -> int:
        """Episodes found; a file whose episodes cannot be listed counts as one."""
        return len(self.places)

    def episode_name(self, number: int) -> str:
        """`episode_3.hdf5`, or `image.hdf5: data/demo_3`."""
        place = self.places[number]
        return f"{place.path.name}: {place.group}" if place.group else place.path.name

    def identity(self) -> dict[str, Any]:
        """The map and the episodes."""
        places = [[str(place.path.resolve()), place.group] for place in self.places]
        return {"hdf5": places, "map": self.layout.model_dump(mode="json")}

    def episode_identity(self, number: int) -> Any:
        """Size and time of its file, and its split."""
        status = self.places[number].path.stat()
        return [status.st_size, status.st_mtime_ns, self.places[number].split]

    def provenance(self) -> list[dict[str, Any]]:
        """Name and size of each file. Their content is not hashed: it may be terabytes."""
        files = dict.fromkeys(place.path for place in self.places)
        return [{"file": path.name, "size_bytes": path.stat().st_size} for path in files]

    @contextmanager
    def opened(self) -> Iterator[ReadEpisode]:
        """Start the child process that reads."""
        with hdf5_reader(self.read_timeout_s) as reader:
            yield lambda number: self._read(number, reader)

    def _read(self, number: int, reader: ForeignReader) -> Episode:
        place, layout = self.places[number], self.layout
        if place.damage is not None:
            raise Fault("unreadable", place.damage, REMEDY)
        file = Hdf5File(place.path, reader, REMEDY)
        state, action = field_sources(layout.state), field_sources(layout.action)
        sources = dict.fromkeys(field.source for field in (*state, *action))
        arrays = {source: _numbers(file, _join(place.group, source)) for source in sources}
        for field in (*state, *action):
            if arrays[field.source].shape[1] < (field.stop or 0):
                width = arrays[field.source].shape[1]
                raise Fault("layout", f"{self.episode_name(number)}: {field.source} has {width} columns, the map takes "
                            f"{field.start} to {field.stop}.")  # fmt: skip
        lengths = {source: len(array) for source, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise Fault("length", f"{self.episode_name(number)}: its arrays have different lengths: {lengths}.")
        time = layout.timestamps
        return Episode(
            instruction=_instruction(file, place.group, layout),
            actions=gather(action, arrays),
            proprio=gather(state, arrays),
            frames={
                view: _frames(file, _join(place.group, camera.source), camera, f"{self.episode_name(number)}: {view}")
                for view, camera in layout.cameras.items()
            },
            timestamps=None if time is None else _numbers(file, _join(place.group, time))[:, 0].astype(np.float64),
            split=place.split,
        )


def find_episodes(files: Sequence[Path], layout: Hdf5Map, read_timeout_s: float) -> tuple[Place, ...]:
    """The episodes of all files, in the order of the files and, within one, of the numbers in their names.

    A file whose episodes cannot be listed is one place with its damage.
    """
    if layout.episodes is None:
        return tuple(Place(path, "") for path in files)
    places: list[Place] = []
    with hdf5_reader(read_timeout_s) as reader:
        for path in files:
            try:
                places += _episodes_of(Hdf5File(path, reader, REMEDY), layout, layout.episodes)
            except DataError as error:
                places.append(Place(path, "", damage=error.message))
    return tuple(places)


def _episodes_of(file: Hdf5File, layout: Hdf5Map, group: str) -> list[Place]:
    if not file.is_group(group):
        raise DataError(f"{file.path} has no group `{group}`.", REMEDY)
    split_of: dict[str, str] = {}
    for split, key in layout.splits.items():
        if key in file:
            split_of |= dict.fromkeys(file.texts(key), split)
    names = sorted(file.keys(group), key=_by_numbers)
    return [Place(file.path, _join(group, name), split_of.get(name)) for name in names]


def _by_numbers(name: str) -> list[tuple[int, str]]:
    """Sorts demo_10 after demo_9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _join(group: str, key: str) -> str:
    return f"{group}/{key}" if group else key


def _numbers(file: Hdf5File, key: str) -> np.ndarray:
    """(T,D) of a dataset with one or two axes."""
    described = file.describe(key)
    if len(described.shape) not in (1, 2) or described.dtype[1:2] not in "biuf":
        raise Fault("layout", f"{file.path}: {key} has shape {described.shape} and type {described.dtype}.", REMEDY)
    values = file.read(key)
    return values.reshape(len(values), -1)


def _instruction(file: Hdf5File, group: str, layout: Hdf5Map) -> str:
    where = layout.instruction
    if where.attribute is not None:
        text = file.attribute(group or "/", where.attribute)
        return text if isinstance(text, str) else ""
    if where.dataset is not None and _join(group, where.dataset) in file:
        return file.text(_join(group, where.dataset))
    return ""


def _frames(file: Hdf5File, key: str, camera: CameraMap, what: str) -> Iterator[Frame]:
    """The images of a view, some at a time."""
    described = file.describe(key)
    shape, kind = described.shape, described.dtype
    if len(shape) == 4 and shape[3] == 3 and kind == "|u1":
        for block in _blocks(file, key, shape, described.size_bytes):
            pixels = block[..., ::-1] if camera.colours == "bgr" else block
            yield from np.rot90(pixels, camera.rotate // 90, axes=(1, 2))
        return
    if camera.rotate:
        raise Fault("layout", f"{what}: encoded images cannot be rotated.", "Remove `rotate` from the map.")
    if len(shape) == 2 and kind == "|u1":
        for block in _blocks(file, key, shape, described.size_bytes):
            yield from (row.tobytes() for row in block)
    elif len(shape) == 1 and kind == "|O":
        yield from (file.read(key, row).tobytes() for row in range(shape[0]))
    else:
        raise Fault("layout", f"{file.path}: {key} has shape {shape} and type {kind}: no images.", REMEDY)


def _blocks(file: Hdf5File, key: str, shape: tuple[int, ...], size_bytes: int) -> Iterator[np.ndarray]:
    rows = max(1, BLOCK_BYTES // max(size_bytes // max(shape[0], 1), 1))
    for start in range(0, shape[0], rows):
        yield file.read_rows(key, start, min(start + rows, shape[0]))
