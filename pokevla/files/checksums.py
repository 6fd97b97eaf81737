"""Size and checksum of a file, measured on the disk or while it is being written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import xxhash

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

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def described_as(self, name: str) -> StoredFile:
        """What has been written, under a name relative to the checkpoint's folder."""
        return StoredFile(name, self._size, self._digest.hexdigest())
