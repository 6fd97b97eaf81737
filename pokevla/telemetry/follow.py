"""Reads a JSON lines file while another process writes it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from pokevla.errors import DataError
from pokevla.files.texts import open_regular
from pokevla.telemetry.jsonl import MAX_LINE_BYTES, parse_row

CHUNK_BYTES = MAX_LINE_BYTES
"""Upper bound of what one `read` takes into memory."""


class JsonlFollower:
    """Returns each line once, in bounded memory; an incomplete line is held back until it is complete.

    Reading an existing file starts `tail_bytes` before its end (None: at its beginning). When the file is replaced or
    truncated (a resume drops the steps it will repeat), the next `read` starts over in the new file and sets `replaced`
    to True: discard what was read before.
    """

    def __init__(self, path: Path, tail_bytes: int | None = None) -> None:
        self.path = path
        self.replaced = False
        self.damaged_lines = 0
        self._tail_bytes = tail_bytes
        self._identity: tuple[int, int] | None = None
        self._offset = 0
        with suppress(FileNotFoundError), self._open() as file:
            self._enter(file)

    def read(self) -> list[dict[str, Any]]:
        """Objects written since the last call, from at most CHUNK_BYTES of text; [] if there is nothing new.

        Lines that `parse_row` refuses are skipped and counted in `damaged_lines`.
        """
        self.replaced = False
        try:
            file = self._open()
        except FileNotFoundError:
            return []
        with file:
            if self._identity is None:
                self._identity = _identity(file)
            elif self._identity != _identity(file) or os.fstat(file.fileno()).st_size < self._offset:
                self.replaced = True
                self._enter(file)
            file.seek(self._offset)
            chunk = file.read(CHUNK_BYTES)
        whole, newline, rest = chunk.rpartition(b"\n")
        if (
            not newline and len(rest) == CHUNK_BYTES
        ):  # no line is that long: the file is damaged, by a crash for example
            self._offset += len(rest)
            self.damaged_lines += 1
            return []
        self._offset += len(whole) + len(newline)
        return [row for line in whole.split(b"\n") if line and (row := self._parse(line)) is not None]

    def read_all(self) -> list[dict[str, Any]]:
        """Everything up to the current end of the file. For files that are known to be small (events)."""
        rows = self.read()
        replaced = self.replaced
        while more := self.read():
            rows += more
        self.replaced = replaced
        return rows

    def _open(self) -> BinaryIO:
        try:
            return open_regular(self.path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror}).") from error

    def _enter(self, file: BinaryIO) -> None:
        self._identity = _identity(file)
        size = file.seek(0, os.SEEK_END)
        start = 0 if self._tail_bytes is None else max(0, size - self._tail_bytes)
        if start > 0:  # start at a complete line: after the first newline at or after `start - 1`
            file.seek(start - 1)
            before, newline, _ = file.read(CHUNK_BYTES).partition(b"\n")
            start = start + len(before) if newline else size
        self._offset = start

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        try:
            return parse_row(line, str(self.path))
        except DataError:
            self.damaged_lines += 1
            return None


def _identity(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino
