"""Size and checksum of a file, read from disk or computed while writing."""

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


def measure_file(folder: Path, name: str) -> StoredFile:
    """Size and checksum of `folder/name`, read from disk."""
    digest = xxhash.xxh64()
    with (folder / name).open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return StoredFile(name, (folder / name).stat().st_size, digest.hexdigest())


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
