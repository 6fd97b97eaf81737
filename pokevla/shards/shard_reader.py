"""Reading shards: a bounded number of open files, positioned reads, every payload checked against its checksum."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pokevla.errors import DamagedDataError, DataError
from pokevla.shards.index import CHECKSUMS, IndexEntry, ShardIndex, index_path, load_index
from pokevla.shards.reading import Range, ReadLog, ShardSource, read_fully

Name = Callable[[], str]
"""Makes the name of what is read, for an error message: making it for every read would cost as much as a small read."""
OPEN_SHARDS = 128
"""Files kept open at most, per reader. A full cache has over a thousand; the usual limit of a process is 1,024."""
CHANGED_EVERY_S = 0.1
"""How often an open shard whose records are not checked again is looked at, whether it has changed."""
_IN_USE = "Start again. Do not write to a dataset or cache that a job reads; write a new one beside it."


@dataclass
class _Version:
    """What a shard was when it was first opened. A shard that is closed and opened again has to be the same."""

    index_checksum: str | None
    """None until its index has been read, unless the dataset or cache says it."""
    has_index: bool = False
    file: tuple[int, int, int, int] | None = None
    """Device, inode, size and time of change; None until it is opened."""


class Shards:
    """The shards of one folder, opened when they are first read. Safe to share between threads."""

    def __init__(
        self,
        folder: Path,
        remedy: str,
        checksums: Mapping[str, str | None] | None = None,
        limit: int | None = None,
        source: ShardSource | None = None,
        log: ReadLog | None = None,
    ) -> None:
        """`remedy`: how to rebuild the shards, for error messages. `checksums`: `index_checksum` of the shards' indices
        by shard, as far as they are known. `limit`: most files open at once (OPEN_SHARDS). `source`: where the bytes
        come from if they are not files of `folder`. `log`: notes what is being read."""
        self._source, self._log = source, log if log is not None else ReadLog()
        self._folder, self._remedy, self._checksums = folder, remedy, checksums or {}
        self._limit = OPEN_SHARDS if limit is None else limit
        self._lock = threading.Lock()
        self._versions: dict[str, _Version] = {}
        self._open: OrderedDict[str, _Shard] = OrderedDict()

    def index(self, name: str) -> ShardIndex:
        """Index of the shard `name`; cached while the shard is among the most recently read.

        Raises:
            DataError: the index is missing or damaged.
        """
        return self._shard(name).index

    def read_sample(self, name: str, entry: IndexEntry) -> dict[str, bytes]:
        """All members of one sample by extension, in one read.

        Raises:
            DataError: the shard is missing, truncated or corrupted; names shard and key.
        """
        start = min(member.offset for member in entry.members)
        end = max(member.offset + member.size for member in entry.members)
        shard = self._shard(name)
        shard.check_room(lambda: entry.key, start, end)  # before a damaged index makes us allocate
        buffer = memoryview(bytearray(end - start))
        shard.read(lambda: entry.key, [buffer], end - start, start)
        members: dict[str, bytes] = {}
        for member in entry.members:
            payload = bytes(buffer[member.offset - start : member.offset - start + member.size])
            shard.check(lambda: f"{entry.key}.{member.extension}", [payload], member.checksum)  # noqa: B023 (called at once)
            members[member.extension] = payload
        return members

    def read_record(
        self, name: str, number: int, buffers: Sequence[memoryview], size: int, *, check: bool = True
    ) -> None:
        """Read the first member of sample `number` of a shard into `buffers` in order, by one system call.

        Args:
            name: file name of the shard.
            number: place of the sample in the shard.
            buffers: contiguous, of unsigned bytes.
            size: sum of their sizes, which has to be that of the payload.
            check: whether to compare the payload with its checksum. It is compared in any case once the file is seen
                to have changed since it was first opened.

        Raises:
            DataError: the shard is missing, truncated or corrupted, or its index has no such sample or another size
                there; names shard and key.
        """
        shard = self._shard(name)
        index = shard.index
        if number >= len(index):
            raise shard.error(f"has {len(index)} samples and not {number + 1}")
        offset, stored, checksum = index.first_member(number)
        if stored != size:
            raise shard.error(f"does not fit its index: {index.key(number)} has {stored} B there instead of {size}")
        shard.read(lambda: index.key(number), buffers, size, offset)
        if check or shard.was_seen_changed():
            shard.check(lambda: index.key(number), buffers, checksum)

    @property
    def gains_by_ahead(self) -> bool:
        """Whether `ahead` does anything."""
        return self._source is not None

    def ahead(self, samples: Sequence[tuple[str, int]]) -> None:
        """This thread reads these samples next, each (shard, number), in any order. A source over a network begins now,
        with one request for records that lie close together. Errors come with the read itself."""
        if self._source is None:
            return
        ranges: list[Range] = []
        for name, number in samples:
            index = self.index(name)
            if number < len(index):
                members = index[number].members
                start = min(member.offset for member in members)
                ranges.append((name, start, max(member.offset + member.size for member in members)))
        self._source.ahead(ranges)

    def close(self) -> None:
        """Close all files; a file being read closes when that read ends."""
        with self._lock:
            self._open.clear()

    def _shard(self, name: str) -> _Shard:
        """The shard. It stays open as long as the caller holds it, even if another thread evicts it."""
        with self._lock:
            shard = self._open.pop(name, None)
            if shard is None:
                version = self._versions.setdefault(name, _Version(self._checksums.get(name)))
                shard = _Shard(self._folder / name, self._remedy, version)
                shard.source, shard.log = self._source, self._log
            self._open[name] = shard
            if len(self._open) > self._limit:
                self._open.popitem(last=False)
            return shard


class _Shard:
    """One shard; its index and its file are opened when first needed. The file closes with the last reference."""

    def __init__(self, path: Path, remedy: str, version: _Version) -> None:
        self._path, self._remedy, self._version = path, remedy, version
        self.source: ShardSource | None = None
        self.log = ReadLog()
        self._lock = threading.Lock()
        self._index: ShardIndex | None = None
        self._descriptor: int | None = None
        self._is_changed, self._look_at = False, 0.0

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    @property
    def is_remote(self) -> bool:
        """Whether its bytes come over a network by a URL."""
        return self.source is not None and self.source.is_remote

    @property
    def index(self) -> ShardIndex:
        index = self._index
        if index is None:
            with self._lock:
                index = self._index
                if index is None:
                    index = self._index = self._read_index()
        return index

    def _read_index(self) -> ShardIndex:
        version = self._version
        self.log.begin(self._path)
        try:
            place = self._path if self.source is None else self.source.local_index(self._path.name)
            index = load_index(place, self._remedy, version.index_checksum)
        except DataError as error:
            if version.has_index:
                raise DataError(
                    f"{self._path} was replaced or changed while it was in use: its index is not the one read before.",
                    _IN_USE,
                ) from error
            raise
        finally:
            self.log.end(is_remote=self.is_remote)
        version.index_checksum, version.has_index = index.checksum, True
        return index

    def read(self, key: Name, buffers: Sequence[memoryview], size: int, offset: int) -> None:
        """Fill `buffers`, of `size` bytes together, from byte `offset` on."""
        source, log = self.source, self.log
        log.begin(self._path)
        try:
            if source is None:
                descriptor = self._opened(key)
                count = os.preadv(descriptor, buffers, offset)
                if 0 < count < size:  # interrupted, or above the 2 GiB of one call
                    count = read_fully(descriptor, buffers, offset)
            else:
                count = source.read_into(self._path.name, buffers, size, offset)
        except OSError as error:
            raise self.unreadable(key, error) from error
        finally:
            log.end(is_remote=self.is_remote)
        if count != size:
            raise self.damage(f"is truncated: {key()} has {count} of {size} B")

    def check_room(self, key: Name, start: int, end: int) -> None:
        """DataError unless bytes `start` to `end` lie inside the file."""
        self.log.begin(self._path)
        try:
            size = os.fstat(self._opened(key)).st_size if self.source is None else self.source.size(self._path.name)
        except OSError as error:
            raise self.unreadable(key, error) from error
        finally:
            self.log.end(is_remote=self.is_remote)
        if not 0 <= start <= end <= size:
            raise self.damage(f"is truncated: {key()} ends at byte {end}, the shard has {size} B")

    def check(self, name: Name, buffers: Sequence[memoryview | bytes], checksum: int) -> None:
        """DataError unless the payload in `buffers` has its checksum."""
        digest = CHECKSUMS[self.index.kind]()
        for buffer in buffers:
            digest.update(buffer)
        if digest.intdigest() != checksum:
            raise self.damage(f"is corrupted: the checksum of {name()} differs")

    def was_seen_changed(self) -> bool:
        """`has_changed`, looked up every CHANGED_EVERY_S: asking the system costs a tenth of a small read."""
        now = time.monotonic()
        if not self._is_changed and now >= self._look_at:
            self._is_changed, self._look_at = self.has_changed(), now + CHANGED_EVERY_S
        return self._is_changed

    def has_changed(self) -> bool:
        """Whether the open file is another one than at first, or was written to since."""
        return self._descriptor is not None and _identity(os.fstat(self._descriptor)) != self._version.file

    def _opened(self, key: Name) -> int:
        descriptor = self._descriptor
        if descriptor is not None:
            return descriptor
        with self._lock:
            if self._descriptor is None:
                try:
                    self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError as error:
                    raise self.error(f"is missing: {key()} cannot be read") from error
                except OSError as error:
                    raise self.error(f"cannot be read for {key()} ({error.strerror})") from error
                if self._version.file is None:
                    self._version.file = _identity(os.fstat(self._descriptor))
            return self._descriptor

    def damage(self, problem: str) -> DataError:
        """The error for bytes that are not those that were written."""
        if self.has_changed():
            return DataError(f"{self._path} was replaced or changed while it was in use: it {problem}.", _IN_USE)
        hint = ""
        with suppress(OSError):
            if os.stat(self._path).st_mtime_ns > index_path(self._path).stat().st_mtime_ns:
                hint = " (it was written after its index)"
        return DamagedDataError(f"{self._path} {problem}{hint}.", self._remedy)

    def unreadable(self, key: Name, error: OSError) -> DataError:
        """The error for a read that failed."""
        if isinstance(error, FileNotFoundError):
            return self.error(f"is missing: {key()} cannot be read")
        remedy = getattr(error, "remedy", self._remedy)  # of a store: nothing is wrong with the shard
        return DataError(f"{self._path} cannot be read for {key()} ({error.strerror}).", remedy)

    def error(self, problem: str) -> DataError:
        """The error that names this shard."""
        return DataError(f"{self._path} {problem}.", self._remedy)


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
