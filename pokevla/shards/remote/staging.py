"""Copies of shards on a fast disk of the node, within a bound; those that were used least recently make room.

    FOLDER/pokevla-shards/.lock       held while a shard is copied: one at a time on a node
    FOLDER/pokevla-shards/HASH.tar    a copy, complete or absent; its time of change is that of its last use

Copies are deleted, so they lie in a sub-folder of ours, and no file of another name is counted or touched.

A reader holds a shared lock on each copy that it has open, so nobody deletes it: a file that is open still takes space
after it is deleted. What does not fit is read from where it is.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pokevla.errors import PokeVLAError
from pokevla.files.locks import advisory_lock, lock_within, try_lock
from pokevla.files.names import TEMPORARY
from pokevla.files.remote.mirror import stored_chunks
from pokevla.files.remote.store import CHUNK_BYTES, Store
from pokevla.files.remote.urls import UrlPath, is_url
from pokevla.files.writing import atomic_file
from pokevla.shards.reading import Range, read_fully
from pokevla.shards.remote.source import RemoteSource

OPEN_COPIES = 8
"""Copies that a reader of one dataset or cache keeps open; open ones cannot be deleted (ours: twice the default of
`data.shuffle_window`)."""
SUBFOLDER = "pokevla-shards"
_COPY = re.compile(r"[0-9a-f]{32}\.tar")

logger = logging.getLogger(__name__)


class Copy:
    """An open copy of a shard. It cannot be deleted until the last reference is gone."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Takes over an open file that is locked."""
        self.path, self.descriptor = path, descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class _Wish(NamedTuple):
    """A shard to copy."""

    source: Path
    target: Path


class Staging:
    """The folder of copies, shared by all processes of a node. Thread-safe."""

    def __init__(self, folder: Path, max_bytes: int, store: Store) -> None:
        """Touches nothing. `folder`: that of the recipe. `store`: for shards behind a URL."""
        self.folder, self._max_bytes, self._store = folder / SUBFOLDER, max_bytes, store
        self._wishes: queue.Queue[_Wish] = queue.Queue()
        self._wished: set[Path] = set()
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._pid = 0

    def path(self, shard: Path, version: str) -> Path:
        """Where the copy of a shard is, or would be. `version`: changes when the shard changes."""
        return self.folder / f"{hashlib.sha256(f'{shard} {version}'.encode()).hexdigest()[:32]}.tar"

    def opened(self, path: Path, size: int) -> Copy | None:
        """The copy at `path`, locked and marked as used; None if there is none of `size` bytes."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        copy = Copy(path, descriptor)  # closes it
        try:
            if not try_lock(descriptor, shared=True):  # it is being deleted
                return None
            status = os.fstat(descriptor)
            if status.st_size != size or status.st_nlink == 0:
                return None
            os.utime(descriptor)
        except (OSError, PokeVLAError):
            return None
        return copy

    def wish(self, source: Path, target: Path) -> None:
        """Have a shard copied in the background, if it is not already wished for."""
        with self._lock:
            if self._pid != os.getpid():  # threads do not survive a fork
                self._pid, self._worker, self._wishes, self._wished = os.getpid(), None, queue.Queue(), set()
            if target in self._wished:
                return
            self._wished.add(target)
            self._wishes.put(_Wish(source, target))
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="pokevla-staging", daemon=True)
                self._worker.start()

    def wait(self) -> None:
        """Wait until everything wished for is copied or found not to fit: for tests and benchmarks."""
        self._wishes.join()

    def _work(self) -> None:
        wishes = self._wishes
        while True:
            wish = wishes.get()
            try:
                self.copy(*wish)
            except (OSError, PokeVLAError) as error:
                logger.warning("%s is not copied to %s and read from where it is: %s", wish.source, self.folder, error)
            finally:
                with self._lock:
                    self._wished.discard(wish.target)
                wishes.task_done()

    def copy(self, source: Path, target: Path) -> bool:
        """Copy a shard, if it fits beside the copies in use. Returns whether it is there.

        Raises:
            OSError, PokeVLAError: the shard cannot be read, or the copy cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        size = self._store.info(_url(source)).size if is_url(source) else source.stat().st_size
        with advisory_lock(
            self.folder / ".lock",
            busy=f"Another process copies to {self.folder}.",
            remedy="Wait until it ends.",
            wait_s=600.0,
        ):
            if target.exists():
                return True
            for left in self.folder.glob(f"{TEMPORARY}*"):  # of a killed writer: nobody else writes now
                if _COPY.fullmatch(left.name.removeprefix(TEMPORARY)):
                    left.unlink(missing_ok=True)
            if not self._make_room(size):
                return False
            with atomic_file(target, durable=False) as file:
                for chunk in self._content(source, size):
                    file.write(chunk)
                if file.tell() != size:
                    raise OSError(0, f"{source} has changed: {file.tell()} B instead of {size}")
        return True

    def _content(self, source: Path, size: int) -> Iterator[bytes]:
        if is_url(source):
            yield from stored_chunks(self._store, _url(source), size)
            return
        with source.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def _make_room(self, size: int) -> bool:
        """Delete the copies used least recently until `size` bytes fit. Returns whether they do."""
        copies = sorted((status.st_mtime_ns, path, status.st_size) for path, status in self._copies())
        used = sum(each for _, _, each in copies)
        if size > self._max_bytes:
            return False
        for _, path, freed in copies:
            if used + size <= self._max_bytes:
                break
            if _delete(path):
                used -= freed
        return used + size <= self._max_bytes

    def _copies(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.iterdir():
            if _COPY.fullmatch(path.name):
                with suppress(FileNotFoundError):
                    yield path, path.stat()


class StagedSource:
    """Shards that are read from their copies where there are some, and else from where they are. Thread-safe."""

    def __init__(self, folder: Path, staging: Staging, remote: RemoteSource | None) -> None:
        """`folder`: of the shards. `remote`: how they are read if it is a URL."""
        self._folder, self._staging, self._remote = folder, staging, remote
        self._lock = threading.Lock()
        self._copies: OrderedDict[str, Copy] = OrderedDict()
        self._originals: OrderedDict[str, Copy] = OrderedDict()
        self._targets: dict[str, tuple[Path, int]] = {}
        self.is_remote = remote is not None

    def local_index(self, name: str) -> Path:
        return self._folder / name if self._remote is None else self._remote.local_index(name)

    def size(self, name: str) -> int:
        return self._target(name)[1]

    def read_into(self, name: str, buffers: Sequence[memoryview], size: int, offset: int) -> int:
        copy = self._copy(name)
        if copy is None and self._remote is not None:
            return self._remote.read_into(name, buffers, size, offset)
        copy = copy or self._original(name)
        return read_fully(copy.descriptor, buffers, offset)

    def ahead(self, ranges: Sequence[Range]) -> None:
        if self._remote is None:
            return
        names = {name for name, _, _ in ranges}
        staged = {name for name in names if self._copy(name) is not None}
        self._remote.ahead([each for each in ranges if each[0] not in staged])

    def _copy(self, name: str) -> Copy | None:
        """The copy of a shard; if there is none, it is wished for."""
        with self._lock:
            copy = self._copies.pop(name, None)
            if copy is not None:
                self._copies[name] = copy
                return copy
        target, size = self._target(name)
        copy = self._staging.opened(target, size)
        if copy is None:
            self._staging.wish(self._folder / name, target)
            return None
        with self._lock:
            self._copies[name] = copy
            while len(self._copies) > OPEN_COPIES:
                self._copies.popitem(last=False)
        return copy

    def _original(self, name: str) -> Copy:
        with self._lock:
            opened = self._originals.pop(name, None)
            if opened is None:
                path = self._folder / name
                opened = Copy(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            self._originals[name] = opened
            while len(self._originals) > OPEN_COPIES:
                self._originals.popitem(last=False)
            return opened

    def _target(self, name: str) -> tuple[Path, int]:
        """(path of the copy, size) of a shard."""
        found = self._targets.get(name)
        if found is None:
            path = self._folder / name
            if self._remote is None:
                status = path.stat()
                size, version = status.st_size, f"{status.st_size} {status.st_mtime_ns}"
            else:
                size, stored = self._remote.info(name)
                version = f"{size} {stored}"
            found = self._targets[name] = (self._staging.path(path, version), size)
        return found


def _url(path: Path) -> UrlPath:
    assert isinstance(path, UrlPath)
    return path


def _delete(path: Path) -> bool:
    """Delete a copy unless a reader has it open."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return not path.exists()
    try:
        if not lock_within(descriptor, 0.0):
            return False
        path.unlink(missing_ok=True)
        return True
    except (OSError, PokeVLAError):
        return False
    finally:
        os.close(descriptor)
