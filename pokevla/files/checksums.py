"""Checksums: of a file, read from disk or computed while writing, and of a JSON document, stored inside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from pokevla.errors import DataError, PokeVLAError

CHUNK_BYTES = 1 << 22
CHECKSUM = "xxh64"
"""Key of a JSON document with the checksum of everything else in it."""


@dataclass(frozen=True)
class StoredFile:
    """One file of a checkpoint or a dataset."""

    name: str  # relative to the folder of the checkpoint or dataset
    size: int  # bytes
    xxh64: str  # hex


def measure_file(folder: Path, name: str) -> StoredFile:
    """Size and checksum of `folder/name`, read from disk."""
    digest = xxhash.xxh64()
    with (folder / name).open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return StoredFile(name, (folder / name).stat().st_size, digest.hexdigest())


def file_damage(folder: Path, expected: StoredFile) -> str | None:
    """What is wrong with `folder/expected.name`, as a sentence; None if it has the size and checksum of `expected`."""
    path = folder / expected.name
    try:
        if path.is_dir():
            return f"{path} is a folder."
        size = path.stat().st_size
        if size != expected.size:
            return f"{path} has {size} bytes instead of {expected.size}."
        if measure_file(folder, expected.name) != expected:
            return f"{path} is damaged: its checksum differs."
    except FileNotFoundError:
        return f"{path} is missing."
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        return f"{path} cannot be read ({getattr(error, 'strerror', None) or error})."
    return None


def stored_files(rows: Any, path: Path, *, kind: type[PokeVLAError], remedy: str | None) -> tuple[StoredFile, ...]:
    """The files that `path` lists, from their JSON form.

    Raises:
        PokeVLAError: a `kind` with `remedy`: this is not a list of files.
    """
    try:
        files = tuple(StoredFile(**row) for row in rows)
    except TypeError as error:
        raise kind(f"{path} is damaged: its list of files is not one ({error}).", remedy) from error
    for file in files:
        if [type(value) for value in (file.name, file.size, file.xxh64)] != [str, int, str]:
            raise kind(f"{path} is damaged: {file} is not a file.", remedy)
    return files


class HashingFile:
    """Binary file that computes size and checksum while it is written, so it need not be read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = xxhash.xxh64()
        self._size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`."""
        self._digest.update(data)
        self._size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Flush Python's buffer to the operating system."""
        self._file.flush()

    def sync(self) -> None:
        """Flush, and wait until everything is on disk (fsync)."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def stored_file(self, name: str) -> StoredFile:
        """Size and checksum of what has been written; `name` is relative to the checkpoint's folder."""
        return StoredFile(name, self._size, self._digest.hexdigest())


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with the checksum of its canonical JSON under CHECKSUM."""
    return {**content, CHECKSUM: json_checksum(content)}


def without_checksum(
    content: dict[str, Any],
    path: Path,
    *,
    required: bool = False,
    kind: type[PokeVLAError] = DataError,
    remedy: str | None = None,
) -> dict[str, Any]:
    """Inverse of `with_checksum` for the content of `path`. Documents from before there were checksums have none; with
    `required` this one is not such a document.

    Raises:
        PokeVLAError: a `kind` with `remedy`: the document has changed since it was written.
    """
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    if (required or CHECKSUM in content) and content.get(CHECKSUM) != json_checksum(rest):
        raise kind(f"{path} is damaged: its content does not match its own checksum.", remedy)
    return rest


def json_checksum(content: Mapping[str, Any]) -> str:
    """xxh64 (hex) of a document as it is read back: key order, white space and tuples make no difference."""
    stored = json.loads(json.dumps(content))
    return xxhash.xxh64_hexdigest(json.dumps(stored, sort_keys=True, separators=(",", ":")).encode())
