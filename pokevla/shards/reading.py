"""What the reader of shards needs of a source other than a folder, and a log of its reads.

Readers note in a `ReadLog` what they are reading, so that a supervisor can tell which file never answers, and a line of
metrics which one is slow.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

Range = tuple[str, int, int]
"""(file name of a shard, first byte, end)."""


class ShardSource(Protocol):
    """Shards of one dataset or cache that are not simply files of a folder. Thread-safe."""

    is_remote: bool
    """Whether they come over a network by a URL."""

    def local_index(self, name: str) -> Path:
        """The path of a shard whose index is on this machine, beside it. Raises DataError."""
        ...

    def size(self, name: str) -> int:
        """Bytes of a shard. Raises OSError."""
        ...

    def read_into(self, name: str, buffers: Sequence[memoryview], size: int, offset: int) -> int:
        """Fill `buffers`, of `size` bytes together, from byte `offset` of a shard on. Returns how many bytes there
        were. Raises OSError: its `strerror` is shown, with its `remedy` if it has one."""
        ...

    def ahead(self, ranges: Sequence[Range]) -> None:
        """This thread reads these ranges next, in any order: a source that gains by it begins now."""
        ...


class Slowest(NamedTuple):
    """The slowest read of an interval."""

    seconds: float
    shard: str  # its path or URL; "" if nothing was read
    is_remote: bool


NO_READ = Slowest(0.0, "", False)


class ReadLog:
    """The reads that are going on, and the slowest one so far. Safe to share between threads."""

    def __init__(self) -> None:
        self._now: dict[int, tuple[float, Path]] = {}  # by thread
        self._slowest = NO_READ

    def begin(self, place: Path) -> None:
        """This thread begins to read this file."""
        self._now[threading.get_ident()] = (time.monotonic(), place)

    def end(self, *, is_remote: bool) -> None:
        """This thread has read what it began to read."""
        begun, place = self._now.pop(threading.get_ident())
        seconds = time.monotonic() - begun
        if seconds > self._slowest.seconds:
            self._slowest = Slowest(seconds, str(place), is_remote)

    def take_slowest(self) -> Slowest:
        """The slowest read since the last call."""
        slowest, self._slowest = self._slowest, NO_READ
        return slowest

    def reading(self) -> dict[int, tuple[float, Path]]:
        """Thread -> (seconds so far, file) of the reads that are going on."""
        now = time.monotonic()
        return {thread: (now - begun, place) for thread, (begun, place) in list(self._now.items())}


def read_fully(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
    """Fill `buffers` in order; returns the bytes read, which are fewer than they hold only at the end of the file."""
    total, rest = 0, list(buffers)
    while rest:
        count = os.preadv(descriptor, rest, offset + total)
        if count == 0:
            break
        total += count
        while rest and count >= len(rest[0]):
            count -= len(rest.pop(0))
        if count:
            rest[0] = rest[0][count:]
    return total
