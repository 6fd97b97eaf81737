"""Reads a stored LIBERO episode for replay, with the state that each image shows.

In published files the image of row t was rendered after action t, so it shows states[t + 1]; the last one shows the
result of one control step from the last state. In files with `pokevla_obs_alignment = before` it shows states[t].
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pokevla.errors import DataError
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
    """One episode of an open file, T rows. Images are read row by row, as they are stored (upside down)."""

    def __init__(self, group: Any, where: str, *, aligned_before: bool) -> None:
        """Raises DataError naming file, demo and key if something is missing or has another shape."""
        self._group, self._where, self._before = group, where, aligned_before
        self.actions = self._array("actions", (None, 7))
        length = len(self.actions)
        self.states = self._array("states", (length, None))
        self.joints = self._array("obs/joint_states", (length, 7))
        self.drawn = np.ones(length, dtype=bool)
        """(T,) bool: which rows have a picture (all, but in files of ours that say otherwise)."""
        if "obs/rendered" in group:
            self.drawn = self._array("obs/rendered", (length,)).astype(bool)
        sizes = {self._shape(f"obs/{camera}_rgb") for camera in CAMERAS}
        size = next(iter(sizes))
        if len(sizes) > 1 or len(size) != 4 or size[0] != length or size[1] != size[2] or size[3] != 3:
            raise DataError(f"{where}: images of shape {sorted(sizes)}, expected ({length}, H, H, 3).", _REMEDY)
        self.image_size = int(size[1])
        if not self.drawn.any():
            raise DataError(f"{where}: no row has an image.", _REMEDY)

    @property
    def has_masks(self) -> bool:
        """Whether any view already has masks."""
        return any(f"obs/{camera}_mask" in self._group for camera in CAMERAS)

    def state_row(self, row: int) -> int | None:
        """Row of `states` that the image of `row` shows; None: one control step past the last."""
        shown = row if self._before else row + 1
        return shown if shown < len(self.states) else None

    def pictures(self, row: int) -> np.ndarray:
        """(2, H, H, 3) uint8, as stored."""
        return np.stack([self._read(f"obs/{camera}_rgb", row) for camera in CAMERAS])

    def model_poses(self) -> dict[str, BodyPose]:
        """Poses of the bodies of the episode's own model (attribute `model_file`)."""
        text = self._group.attrs.get("model_file", "")
        try:
            return stored_poses(text.decode() if isinstance(text, bytes) else str(text))
        except DataError as error:
            raise DataError(f"{self._where}: {error.message}", error.remedy) from error

    def _array(self, key: str, shape: tuple[int | None, ...]) -> np.ndarray:
        actual = self._shape(key)
        if len(actual) != len(shape) or any(e not in (None, a) for e, a in zip(shape, actual, strict=True)):
            raise DataError(f"{self._where}/{key} has shape {actual}, expected {shape}.", _REMEDY)
        return self._read(key, ())

    def _shape(self, key: str) -> tuple[int, ...]:
        if not isinstance(self._group.get(key), h5py.Dataset):
            raise DataError(f"{self._where}/{key} is missing.", _REMEDY)
        return self._group[key].shape

    def _read(self, key: str, index: Any) -> np.ndarray:
        try:
            return np.asarray(self._group[key][index])
        except (OSError, RuntimeError) as error:
            raise DataError(f"{self._where}/{key} cannot be read: the file is damaged ({error}).", _REMEDY) from error


@contextmanager
def open_episode(file: DemoSource, demo: str) -> Iterator[StoredEpisode]:
    """The episode `demo` of a file. DataError naming file and demo if it does not have the expected layout."""
    where = f"{file.source}: data/{demo}"
    try:
        opened = h5py.File(file.source, "r")
    except OSError as error:
        raise DataError(f"{file.source} cannot be opened: truncated, or not HDF5 ({error}).", _REMEDY) from error
    with opened:
        group: Any = opened[f"data/{demo}"]
        yield StoredEpisode(group, where, aligned_before=file.aligned_before)
