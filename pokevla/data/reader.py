"""Reading one sample by its row: one positioned read of its members, each checked against its checksum."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import xxhash

from pokevla.data.dataset import SHARDS_NAME, Dataset
from pokevla.errors import DataError
from pokevla.shards.index import IndexEntry, load_index

OPEN_SHARDS = 128
"""File handles kept open at most, per reader."""
REMEDY = "Restore the shard, or convert the dataset again."


class ShardReader:
    """Random access to the samples of a dataset. Safe to share between threads."""

    def __init__(self, dataset: Dataset) -> None:
        """Nothing is opened before the first read."""
        self._folder = dataset.root / SHARDS_NAME
        self._names = dataset.shard_names
        self._keys = dataset.samples["key"].to_pylist()
        self._shards = dataset.samples["shard"].to_numpy()
        self._first_rows = np.searchsorted(self._shards, np.arange(len(self._names)))
        self._lock = threading.Lock()
        self._open: OrderedDict[int, tuple[int, list[IndexEntry]]] = OrderedDict()

    def read(self, row: int) -> dict[str, bytes]:
        """Members of the sample at `row` of the table, by extension (`base.jpg`, `json`, ...).

        Raises DataError naming shard and key when the shard is missing, truncated or corrupted.
        """
        shard, key = int(self._shards[row]), self._keys[row]
        path = self._folder / self._names[shard]
        with self._lock:
            descriptor, entries = self._opened(shard, path)
            # A duplicate keeps the file open for this read even if the cache closes it meanwhile.
            handle = os.dup(descriptor)
        try:
            place = row - int(self._first_rows[shard])
            if place >= len(entries) or entries[place].key != key:
                raise DataError(f"{path}: its index does not have {key} at place {place}.", REMEDY)
            return read_members(handle, entries[place], path)
        finally:
            os.close(handle)

    def _opened(self, shard: int, path: Path) -> tuple[int, list[IndexEntry]]:
        """Descriptor and index of a shard, opened now or before. The caller holds the lock."""
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        entries = load_index(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing.", REMEDY) from error
        self._open[shard] = (descriptor, entries)
        if len(self._open) > OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1][0])
        return descriptor, entries

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for descriptor, _ in self._open.values():
                os.close(descriptor)
            self._open.clear()


def read_members(descriptor: int, entry: IndexEntry, path: Path) -> dict[str, bytes]:
    """All members of one sample in one read of an open shard; `path` is for the error only."""
    start = entry.members[0].offset
    end = max(member.offset + member.size for member in entry.members)
    buffer = bytearray(end - start)
    view, filled = memoryview(buffer), 0
    while filled < len(buffer):
        count = os.preadv(descriptor, [view[filled:]], start + filled)
        if count == 0:
            raise DataError(f"{path} is truncated: sample {entry.key} ends at byte {end}.", REMEDY)
        filled += count
    members: dict[str, bytes] = {}
    for member in entry.members:
        payload = bytes(view[member.offset - start : member.offset - start + member.size])
        if xxhash.xxh64_intdigest(payload) != member.checksum:
            raise DataError(f"{path} is corrupted: checksum of {entry.key}.{member.extension} differs.", REMEDY)
        members[member.extension] = payload
    return members
