"""Reads HDF5 files that others wrote. libhdf5 runs in a child process; keys are paths within the file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.errors import DataError
from pokevla.files.foreign.process import READ_TIMEOUT_S, ForeignReader
from pokevla.files.texts import open_regular, parse_json

REMEDY = "Give a complete, readable file in the official LIBERO layout."
_GIB = 1 << 30
LARGEST_BYTES = 8 * _GIB
"""The most that is read at once, whatever the size of the file."""


@dataclass(frozen=True)
class Description:
    """What a file says of one dataset, before anything is read."""

    shape: tuple[int, ...]
    dtype: str
    """numpy's name, or `text`."""
    size_bytes: int
    storage: dict[str, Any]
    """Chunks and compression, as arguments of h5py's `create_dataset`."""


class Hdf5File:
    """A file, read through `reader`. Every method raises DataError naming file and key for what cannot be read."""

    def __init__(self, path: Path, reader: ForeignReader, remedy: str = REMEDY) -> None:
        """Raises DataError if the file is missing, not a regular file, truncated, or not HDF5."""
        self.path, self._reader, self._remedy = path, reader, remedy
        try:
            with open_regular(path) as file:
                size = os.fstat(file.fileno()).st_size
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing.", "Check the path.") from error
        except OSError as error:
            raise DataError(
                f"{path} cannot be opened ({error.strerror}).", "Check the path and its permissions."
            ) from error
        self.memory_bytes = min(LARGEST_BYTES, _GIB + 16 * size)
        """The most that an array, or all arrays of an episode, may hold: gzip packs images to a third, a bomb to a
        thousandth."""
        self._where = str(path.absolute())
        self._looked: dict[str, dict[str, Any] | None] = {}
        reader.ask(
            {"operation": "open", "path": self._where}, str(path), remedy, memory_bytes=self.memory_bytes,
            why="cannot be opened: truncated, or not HDF5",
        )  # fmt: skip

    def __contains__(self, key: str) -> bool:
        return self._look(key) is not None

    def is_group(self, key: str) -> bool:
        """Whether there is a group at `key`."""
        found = self._look(key)
        return found is not None and found["kind"] == "group"

    def _look(self, key: str) -> dict[str, Any] | None:
        if key not in self._looked:
            self._looked[key] = self._ask("look", key)[0]
        return self._looked[key]

    def keys(self, group: str) -> list[str]:
        """Names of the members of a group."""
        return [str(name) for name in self._ask("keys", group)[0]]

    def describe(self, key: str) -> Description:
        """Shape, type and size of a dataset."""
        found = self._look(key)
        if found is None or found["kind"] != "dataset":
            what = "is missing" if found is None else "is not a dataset"
            raise DataError(f"{self.path}: {key} {what}.", self._remedy)
        shape = tuple(int(size) for size in found["shape"])
        return Description(shape, str(found["dtype"]), int(found["bytes"]), dict(found["storage"]))

    def read(self, key: str, row: int | None = None) -> np.ndarray:
        """A dataset, or one row of it."""
        described = self.describe(key)
        size = described.size_bytes if row is None else described.size_bytes // max(described.shape[0], 1)
        self.refuse_larger(size, key)
        array = self._ask("read", key, row=row, array_bytes=size)[1]
        if array is None:
            raise DataError(f"{self.path}: {key} cannot be read.", self._remedy)
        return array

    def read_rows(self, key: str, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` - 1 of a dataset."""
        described = self.describe(key)
        size = described.size_bytes // max(described.shape[0], 1) * (stop - start)
        self.refuse_larger(size, key)
        array = self._ask("read_rows", key, rows=[start, stop], array_bytes=size)[1]
        if array is None:
            raise DataError(f"{self.path}: {key} cannot be read.", self._remedy)
        return array

    def refuse_larger(self, size_bytes: int, key: str) -> None:
        """Raise DataError if what is at `key` claims more than `memory_bytes`."""
        if size_bytes > self.memory_bytes:
            raise DataError(
                f"{self.path}: {key} claims {size_bytes / _GIB:.1f} GiB: more than {self.memory_bytes / _GIB:.1f} GiB, "
                "the limit for a file of this size.",
                self._remedy,
            )

    def texts(self, key: str) -> list[str]:
        """A one-dimensional dataset of texts."""
        return [str(text) for text in self._ask("texts", key)[0]]

    def text(self, key: str) -> str:
        """A dataset of one text."""
        return str(self._ask("text", key)[0])

    def attributes(self, owner: str) -> list[str]:
        """Names of the attributes of a group or dataset."""
        return [str(name) for name in self._ask("attributes", owner)[0]]

    def attribute(self, owner: str, name: str) -> str | np.ndarray | None:
        """An attribute: a text, or an array (without axes if it is one number); None if there is none."""
        text, array = self._ask("attribute", owner, name=name)
        return array if array is not None else text

    def json_attribute(self, owner: str, name: str) -> Any:
        """Content of an attribute that holds JSON; None if there is none."""
        text = self.attribute(owner, name)
        if text is None:
            return None
        what = self._what(owner, name)
        if not isinstance(text, str):
            raise DataError(f"{what} is not a text.", self._remedy)
        return parse_json(text, what, remedy=self._remedy)

    def _what(self, key: str, name: str = "") -> str:
        attribute = f"attribute `{name}` of " if name else ""
        return f"{self.path}: {attribute}{key.strip('/') or 'the file'}"

    def _ask(
        self, operation: str, key: str, *, array_bytes: int = 0, **arguments: Any
    ) -> tuple[Any, np.ndarray | None]:
        request = {"operation": operation, "path": self._where, "key": key, **arguments}
        what = self._what(key, str(arguments.get("name", "")))
        return self._reader.ask(request, what, self._remedy, memory_bytes=self.memory_bytes, array_bytes=array_bytes)


def hdf5_reader(timeout_s: float = READ_TIMEOUT_S) -> ForeignReader:
    """A child process for any number of HDF5 files, one after another. A context manager."""
    return ForeignReader("pokevla.files.foreign.hdf5_child", "libhdf5", timeout_s)
