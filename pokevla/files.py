"""Files that are there whole or not at all: fsync, checksum, atomic replace, and errors that say "disk full"."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from pokevla.errors import NO_ROOM, CheckpointError, DiskFullError, PokeVLAError

CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class StoredFile:
    """One file of a checkpoint."""

    name: str  # relative to the checkpoint's folder
    size: int  # bytes
    xxh64: str  # hex


def describe_file(folder: Path, name: str) -> StoredFile:
    """Measure a file: size and checksum."""
    digest = xxhash.xxh64()
    with (folder / name).open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return StoredFile(name, (folder / name).stat().st_size, digest.hexdigest())


class HashingFile:
    """A binary file being written that knows size and checksum of what went through it: no second reading."""

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
        """Hand everything to the operating system."""
        self._file.flush()

    def described_as(self, name: str) -> StoredFile:
        """What has been written, under a name relative to the checkpoint's folder."""
        return StoredFile(name, self._size, self._digest.hexdigest())


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old one or the new one, never half.

    Raises:
        DiskFullError: no room; the old file is still there.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise as_named_error(error, path) from error


def write_json_atomically(path: Path, content: Any) -> None:
    """`write_text_atomically` of indented JSON."""
    write_text_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def as_named_error(error: Exception, path: Path) -> PokeVLAError:
    """Name an error met while writing below `path`."""
    cause: BaseException | None = error
    while cause is not None:  # torch wraps the OSError of the file below
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            free_mib = free_bytes(path) / 2**20
            return DiskFullError(
                f"No room to write {path} ({cause.strerror}; {free_mib:.0f} MiB free there).",
                "Free some space, or lower checkpoint.keep_last; then go on with: pokevla resume RUN",
            )
        cause = cause.__cause__ or cause.__context__
    return CheckpointError(f"Cannot write {path}: {error}")


def free_bytes(path: Path) -> int:
    """Room on the disk that `path` lies on or will lie on."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def remove_folder(folder: Path, marker: str) -> None:
    """Delete a folder, its marker first, so that a deletion cut short leaves nothing that looks complete."""
    (folder / marker).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
