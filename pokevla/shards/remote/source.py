"""Shards behind a URL: indices are copied to this machine, records are read by ranges."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from pokevla.files.remote.mirror import Mirror
from pokevla.files.remote.store import Store, StoredInfo
from pokevla.files.remote.urls import UrlPath
from pokevla.shards.index import MAX_INDEX_BYTES, index_path
from pokevla.shards.reading import Range
from pokevla.shards.remote.blocks import Block, joined


class RemoteSource:
    """The shards below a URL. Thread-safe.

    What a thread has announced with `ahead` is under way at once and kept until it is read, or until the thread
    announces the next batch: at most one batch per thread.
    """

    is_remote = True

    def __init__(self, mirror: Mirror, folder: str, store: Store, gap_bytes: int) -> None:
        """`folder`: name of the folder of the shards below the mirror's URL."""
        self._mirror, self._folder, self._store, self._gap_bytes = mirror, folder, store, gap_bytes
        self._announced = threading.local()
        self._infos: dict[str, StoredInfo] = {}

    def local_index(self, name: str) -> Path:
        shard = Path(self._folder, name)
        self._mirror.copy(index_path(shard).as_posix(), MAX_INDEX_BYTES)
        return self._mirror.folder / shard

    def size(self, name: str) -> int:
        return self.info(name).size

    def info(self, name: str) -> StoredInfo:
        """Size and version of a shard, asked for once. Raises OSError."""
        if name not in self._infos:
            self._infos[name] = self._store.info(self.url(name))
        return self._infos[name]

    def url(self, name: str) -> UrlPath:
        """Where a shard is."""
        return self._mirror.url / self._folder / name

    def read_into(self, name: str, buffers: Sequence[memoryview], size: int, offset: int) -> int:
        waiting = self._waiting()
        found = next((each for each in waiting if _holds(each[0], name, offset, offset + size)), None)
        if found is None:
            content, start = self._store.read(self.url(name), offset, offset + size), offset
        else:
            block, future = found
            content, start = self._store.result(future), block.start
            block.uses -= 1
            if block.uses <= 0:
                waiting.remove(found)
        scatter(memoryview(content)[offset - start : offset - start + size], buffers)
        return size

    def ahead(self, ranges: Sequence[Range]) -> None:
        waiting = self._waiting()
        for _, future in waiting:
            future.cancel()
        waiting.clear()
        for block in joined(ranges, self._gap_bytes):
            waiting.append((block, self._store.start(self.url(block.name), block.start, block.end)))

    def _waiting(self) -> list[tuple[Block, Future[bytes]]]:
        if not hasattr(self._announced, "blocks"):
            self._announced.blocks = []
        blocks: list[tuple[Block, Future[bytes]]] = self._announced.blocks
        return blocks


def scatter(content: memoryview, buffers: Sequence[memoryview]) -> None:
    """Copy `content` into `buffers` in order; they have its size together."""
    start = 0
    for buffer in buffers:
        buffer[:] = content[start : start + len(buffer)]
        start += len(buffer)


def _holds(block: Block, name: str, start: int, end: int) -> bool:
    return block.name == name and block.start <= start and end <= block.end
