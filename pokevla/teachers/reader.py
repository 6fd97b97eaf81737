"""Reading cached features by sample key, straight from the shards into numpy arrays."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import xxhash

from pokevla.data.batch import FeatureArrays
from pokevla.data.dataset import SHARDS_NAME, Dataset
from pokevla.errors import DataError
from pokevla.recipe.sections import CacheConfig
from pokevla.teachers.codec import RecordLayout, in_file_order
from pokevla.teachers.encoders import teacher_spec
from pokevla.teachers.fingerprint import cache_fingerprint
from pokevla.teachers.store import REBUILD, find_cache, read_index, read_manifest

_MAX_OPEN_SHARDS = 128  # a full cache has over a thousand; the usual limit of open files is 1,024


@dataclass(frozen=True)
class _Place:
    """Where a record's payload is."""

    shard: Path
    offset: int
    checksum: int


class _OpenShard:
    """A file descriptor that closes when the last reader lets go of it, so that eviction cannot hurt a read."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        descriptor = getattr(self, "descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


class FeatureReader:
    """Cached features of one dataset, by key. May be used by several threads at once."""

    def __init__(self, places: dict[str, _Place], layout: RecordLayout, fingerprint: str = "") -> None:
        """Prefer `FeatureReader.open` or `open_features`."""
        self.layout = layout
        self.fingerprint = fingerprint
        self._places = places
        self._open: OrderedDict[Path, _OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, root: Path, fingerprint: str, dataset: Dataset, parts: dict[str, str] | None = None) -> Self:
        """Open the cache `root/fingerprint` for `dataset`; `parts` lets a refusal say what differs.

        Raises:
            CacheMismatchError: only caches made from other parts are there, or this one is of another dataset.
            DataError: no cache, an incomplete or damaged one, or one that lacks a sample of the dataset.
        """
        directory = find_cache(root, fingerprint, parts)
        places, layout = _read_places(directory)
        missing = [key for key in dataset.samples["key"].to_pylist() if key not in places]
        if missing:
            raise DataError(f"The cache {directory} lacks {len(missing)} samples, the first is {missing[0]}.", REBUILD)
        return cls(places, layout, fingerprint)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    @property
    def keys(self) -> list[str]:
        """All keys, in the order of the shards."""
        return list(self._places)

    def read(self, key: str, into: FeatureArrays | None = None) -> FeatureArrays:
        """Return the stored features of one sample; `into` (contiguous, of `layout`) saves allocating.

        Raises:
            DataError: unknown key, or a shard that is missing, truncated or corrupted; names shard and key.
        """
        place = self._places.get(key)
        if place is None:
            raise DataError(f"The feature cache holds no sample {key}.", REBUILD)
        arrays = into if into is not None else self.layout.new_arrays()
        buffers = [array.reshape(-1).view(np.uint8).data for array in in_file_order(arrays)]
        expected = self.layout.payload_bytes
        try:
            shard = self._opened(place.shard)  # held while it is read: another thread may evict it meanwhile
            count = os.preadv(shard.descriptor, buffers, place.offset)
        except OSError as error:
            raise DataError(f"{place.shard}: {key} cannot be read ({error.strerror}).", REBUILD) from error
        if count != expected:
            raise DataError(f"{place.shard} is truncated: {key} has {count} of {expected} B.", REBUILD)
        digest = xxhash.xxh64()
        for buffer in buffers:
            digest.update(buffer)
        if digest.intdigest() != place.checksum:
            raise DataError(f"{place.shard} is corrupted: {key} does not match its checksum.", REBUILD)
        return arrays

    def _opened(self, shard: Path) -> _OpenShard:
        with self._lock:
            opened = self._open.pop(shard, None)
            if opened is None:
                opened = _OpenShard(shard)
            self._open[shard] = opened
            if len(self._open) > _MAX_OPEN_SHARDS:
                self._open.popitem(last=False)
            return opened


def _read_places(directory: Path) -> tuple[dict[str, _Place], RecordLayout]:
    manifest = read_manifest(directory)
    places: dict[str, _Place] = {}
    for name in manifest["shards"]:
        shard = directory / SHARDS_NAME / name
        for key, member in read_index(shard).items():
            places[key] = _Place(shard, member.offset, member.checksum)
    return places, RecordLayout.from_dict(manifest["layout"])


def open_directory(directory: Path) -> FeatureReader:
    """Open a complete cache by its own directory, whatever it was made from."""
    return FeatureReader(*_read_places(directory))


def open_features(cache: CacheConfig, datasets: Sequence[Dataset]) -> list[FeatureReader]:
    """Open the cache that `cache` names for each dataset of a mixture, in order.

    Raises:
        CacheMismatchError: a cache was made from other teachers, codecs or another dataset; names what differs.
        DataError: a cache is missing, incomplete or damaged.
    """
    specs = (teacher_spec(cache.sam), teacher_spec(cache.vggt))
    readers = []
    for dataset in datasets:
        fingerprint, parts = cache_fingerprint(cache, dataset.fingerprint, specs)
        readers.append(FeatureReader.open(cache.root, fingerprint, dataset, parts))
    return readers
