"""Reads a stored LIBERO episode for replay, with the state that each image shows.

In published files the image of row t was rendered after action t, so it shows states[t + 1]; the last one shows the
result of one control step from the last state. In files with `pokevla_obs_alignment = before` it shows states[t].
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pokevla.embodiment.finite import LARGEST, refuse_bad_rows
from pokevla.errors import DataError
from pokevla.files.foreign.hdf5 import Hdf5File
from pokevla.files.foreign.process import ForeignReader
from pokevla.simulation.stored_models import BodyPose, stored_poses

CAMERAS = ("agentview", "eye_in_hand")  # base, wrist
_REMEDY = "Name a complete, readable file in the official LIBERO layout."


@dataclass(frozen=True)
class DemoSource:
    """One demonstration file to be replayed into `target`, with the content of its header."""

    source: Path
    target: Path
    suite: str
    task_index: int
    demo_names: tuple[str, ...]
    aligned_before: bool


class StoredEpisode:
    """One episode of a file, T rows. Images are read row by row, as they are stored (upside down)."""

    def __init__(self, file: Hdf5File, demo: str, *, aligned_before: bool) -> None:
        """Raises DataError naming file, demo and key if something is missing or has another shape."""
        self._file, self._group, self._before = file, f"data/{demo}", aligned_before
        self._where = f"{file.path}: {self._group}"
        self.actions = self._array("actions", (None, 7))
        length = len(self.actions)
        self.states = self._array("states", (length, None))
        self.joints = self._array("obs/joint_states", (length, 7))
        self.drawn = np.ones(length, dtype=bool)
        """(T,) bool: which rows have a picture (all, but in files of ours that say otherwise)."""
        if self._has("obs/rendered"):
            self.drawn = self._array("obs/rendered", (length,)).astype(bool)
        self.image_size = self._image_size(length)
        for key, rows, largest in (("actions", self.actions, LARGEST), ("obs/joint_states", self.joints, LARGEST),
                                   ("states", self.states, np.inf)):  # fmt: skip
            refuse_bad_rows(rows, f"{self._where}/{key}", "Download the file again.", largest)
        if not self.drawn.any():
            raise DataError(f"{self._where}: no row has an image.", _REMEDY)

    def _image_size(self, length: int) -> int:
        images = [self._file.describe(f"{self._group}/obs/{camera}_rgb") for camera in CAMERAS]
        self._file.refuse_larger(sum(each.size_bytes for each in images), self._group)
        sizes, types = {each.shape for each in images}, {each.dtype for each in images}
        size = next(iter(sizes))
        if len(sizes) > 1 or len(size) != 4 or size[0] != length or size[1] != size[2] or size[3] != 3:
            raise DataError(f"{self._where}: images of shape {sorted(sizes)}, expected ({length}, H, H, 3).", _REMEDY)
        if types != {"|u1"}:
            raise DataError(f"{self._where}: images of type {sorted(types)}, expected 8 bit.", _REMEDY)
        return size[1]

    @property
    def has_masks(self) -> bool:
        """Whether any view already has masks."""
        return any(self._has(f"obs/{camera}_mask") for camera in CAMERAS)

    def state_row(self, row: int) -> int | None:
        """Row of `states` that the image of `row` shows; None: one control step past the last."""
        shown = row if self._before else row + 1
        return shown if shown < len(self.states) else None

    def pictures(self, row: int) -> np.ndarray:
        """(2, H, H, 3) uint8, as stored."""
        return np.stack([self._read(f"obs/{camera}_rgb", row) for camera in CAMERAS])

    def model_poses(self) -> dict[str, BodyPose]:
        """Poses of the bodies of the episode's own model (attribute `model_file`)."""
        text = self._file.attribute(self._group, "model_file")
        try:
            return stored_poses(text if isinstance(text, str) else "")
        except DataError as error:
            raise DataError(f"{self._where}: {error.message}", error.remedy) from error

    def _array(self, key: str, shape: tuple[int | None, ...]) -> np.ndarray:
        actual = self._shape(key)
        if len(actual) != len(shape) or any(e not in (None, a) for e, a in zip(shape, actual, strict=True)):
            raise DataError(f"{self._where}/{key} has shape {actual}, expected {shape}.", _REMEDY)
        return self._file.read(f"{self._group}/{key}")

    def _has(self, key: str) -> bool:
        return f"{self._group}/{key}" in self._file

    def _shape(self, key: str) -> tuple[int, ...]:
        return self._file.describe(f"{self._group}/{key}").shape

    def _read(self, key: str, row: int) -> np.ndarray:
        return self._file.read(f"{self._group}/{key}", row)


def open_episode(source: DemoSource, demo: str, reader: ForeignReader) -> StoredEpisode:
    """The episode `demo` of a file. DataError naming file and demo if it does not have the expected layout."""
    return StoredEpisode(Hdf5File(source.source, reader), demo, aligned_before=source.aligned_before)
