"""Reading shards: a bounded number of open files, positioned reads, every payload checked against its checksum."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import xxhash

from pokevla.errors import DataError
from pokevla.shards.index import IndexEntry, Member, load_index

OPEN_SHARDS = 128
"""Files kept open at most, per reader. A full cache has over a thousand; the usual limit of a process is 1,024."""


class Shards:
    """The shards of one folder, opened when they are first read. Safe to share between threads."""

    def __init__(
        self, folder: Path, remedy: str, checksums: Mapping[str, str | None] | None = None, limit: int = OPEN_SHARDS
    ) -> None:
        """`remedy`: how to rebuild the shards, for error messages. `checksums`: `index_checksum` of the shards' indices
        by shard, as far as they are known. `limit`: most files open at once."""
        self._folder, self._remedy, self._checksums, self._limit = folder, remedy, checksums or {}, limit
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Shard] = OrderedDict()

    def entries(self, name: str) -> list[IndexEntry]:
        """Index of the shard `name`; cached while the shard is among the most recently read.

        Raises:
            DataError: the index is missing or damaged.
        """
        return self._shard(name).entries()

    def read_sample(self, name: str, entry: IndexEntry) -> dict[str, bytes]:
        """All members of one sample by extension, in one read.

        Raises:
            DataError: the shard is missing, truncated or corrupted; names shard and key.
        """
        start = min(member.offset for member in entry.members)
        end = max(member.offset + member.size for member in entry.members)
        shard = self._shard(name)
        shard.check_room(entry.key, start, end)  # before a damaged index makes us allocate
        buffer = memoryview(bytearray(end - start))
        shard.read(entry.key, [buffer], start)
        members: dict[str, bytes] = {}
        for member in entry.members:
            payload = bytes(buffer[member.offset - start : member.offset - start + member.size])
            shard.check(f"{entry.key}.{member.extension}", [payload], member)
            members[member.extension] = payload
        return members

    def read_into(self, name: str, key: str, member: Member, buffers: Sequence[memoryview]) -> None:
        """Read the payload of one member into `buffers` in order; their sizes add up to that of the payload.

        Raises:
            DataError: the shard is missing, truncated or corrupted, or its index names another size; names shard and
                key.
        """
        shard = self._shard(name)
        shard.check_size(key, member, sum(len(buffer) for buffer in buffers))
        shard.read(key, buffers, member.offset)
        shard.check(key, buffers, member)

    def close(self) -> None:
        """Close all files; a file being read closes when that read ends."""
        with self._lock:
            self._open.clear()

    def _shard(self, name: str) -> _Shard:
        """The shard. It stays open as long as the caller holds it, even if another thread evicts it."""
        with self._lock:
            shard = self._open.pop(name, None)
            if shard is None:
                shard = _Shard(self._folder / name, self._remedy, self._checksums.get(name))
            self._open[name] = shard
            if len(self._open) > self._limit:
                self._open.popitem(last=False)
            return shard


class _Shard:
    """One shard; its index and its file are opened when first needed. The file closes with the last reference."""

    def __init__(self, path: Path, remedy: str, index_checksum: str | None) -> None:
        self._path, self._remedy, self._index_checksum = path, remedy, index_checksum
        self._lock = threading.Lock()
        self._entries: list[IndexEntry] | None = None
        self._descriptor: int | None = None

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def entries(self) -> list[IndexEntry]:
        with self._lock:
            if self._entries is None:
                self._entries = load_index(self._path, self._remedy, self._index_checksum)
            return self._entries

    def read(self, key: str, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill `buffers` from byte `offset` on."""
        expected = sum(len(buffer) for buffer in buffers)
        try:
            count = _read_fully(self._opened(key), buffers, offset)
        except OSError as error:
            raise self._error(f"cannot be read for {key} ({error.strerror})") from error
        if count != expected:
            raise self._error(f"is truncated: {key} has {count} of {expected} B")

    def check_room(self, key: str, start: int, end: int) -> None:
        """DataError unless bytes `start` to `end` lie inside the file."""
        size = os.fstat(self._opened(key)).st_size
        if not 0 <= start <= end <= size:
            raise self._error(f"is truncated: {key} ends at byte {end}, the shard has {size} B")

    def check_size(self, key: str, member: Member, size: int) -> None:
        """DataError unless the index gives the payload this size."""
        if member.size != size:
            raise self._error(f"does not fit its index: {key} has {member.size} B there instead of {size}")

    def check(self, name: str, buffers: Sequence[memoryview | bytes], member: Member) -> None:
        """DataError unless the payload in `buffers` has its checksum."""
        digest = xxhash.xxh64()
        for buffer in buffers:
            digest.update(buffer)
        if digest.intdigest() != member.checksum:
            raise self._error(f"is corrupted: the checksum of {name} differs")

    def _opened(self, key: str) -> int:
        with self._lock:
            if self._descriptor is None:
                try:
                    self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError as error:
                    raise self._error(f"is missing: {key} cannot be read") from error
                except OSError as error:
                    raise self._error(f"cannot be read for {key} ({error.strerror})") from error
            return self._descriptor

    def _error(self, problem: str) -> DataError:
        return DataError(f"{self._path} {problem}.", self._remedy)


def _read_fully(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
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
