"""Files that grow line by line and survive a full disk: a line is there as a whole or not at all, and none gets lost
while the process lives."""

from __future__ import annotations

import logging
import os
from collections import deque
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Lines that wait in memory for room on the disk; beyond that the oldest are dropped. At most some megabytes."""


class LineFile:
    """Appends lines to a file. What cannot be written (disk full, quota, a failing disk) waits in memory and is written
    with the next line that can be. The log says so once, and again when the file is complete."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`. Raises OSError."""
        self.path = path
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o666)
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._failing = False

    def write(self, line: bytes) -> None:
        """Append `line`, which ends with a newline, now or once there is room. Does nothing once closed."""
        self._waiting.append(line)
        self._drain()

    def close(self) -> None:
        """Sync to disk and close. Closing twice is allowed. Lines that still find no room are lost; the log says so."""
        if self._descriptor is None:
            return
        if self._waiting:
            self._drain()
        descriptor, self._descriptor = self._descriptor, None
        with suppress(OSError):  # what could not be written is reported below
            os.fsync(descriptor)
        os.close(descriptor)
        if self._waiting:
            logger.error("%d lines of %s are lost: they cannot be written", len(self._waiting), self.path)

    def _drain(self) -> None:
        if self._descriptor is None:
            return
        start, written, block = os.fstat(self._descriptor).st_size, 0, b"".join(self._waiting)
        try:
            while written < len(block):
                written += os.write(self._descriptor, block[written:])
        except OSError as error:
            self._undo(start, written)
            self._note(f"cannot be written ({error.strerror}): its lines wait in memory", failing=True)
        else:
            self._waiting.clear()
            self._note("can be written again: nothing is missing", failing=False)

    def _note(self, text: str, *, failing: bool) -> None:
        """Log a change. The log itself may be this file, so that this calls `write` again."""
        changed, self._failing = failing != self._failing, failing
        if changed:
            logger.warning("%s %s", self.path, text)

    def _undo(self, start: int, written: int) -> None:
        """Remove a part of a line, unless another process has appended in the meantime."""
        if self._descriptor is not None and written and os.fstat(self._descriptor).st_size == start + written:
            with suppress(OSError):
                os.ftruncate(self._descriptor, start)
