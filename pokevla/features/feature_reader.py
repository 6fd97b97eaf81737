"""Reads cached features by sample key, directly from the shards into numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from pokevla.data.dataset import SHARDS_NAME, Dataset
from pokevla.errors import DataError
from pokevla.features.cache_files import find_cache, read_indices, read_manifest
from pokevla.features.fingerprint import cache_fingerprint
from pokevla.features.layout import REBUILD, Features, RecordLayout, in_file_order
from pokevla.recipe.sections import CacheConfig
from pokevla.shards.index import Member
from pokevla.shards.shard_reader import Shards
from pokevla.teachers.teacher import teacher_spec


class FeatureReader:
    """Cached features of one dataset, by key. Thread-safe."""

    def __init__(
        self, shards: Shards, index: dict[str, tuple[str, Member]], layout: RecordLayout, fingerprint: str = ""
    ) -> None:
        """Prefer `FeatureReader.open` or `open_features`. `index` maps each key to its shard's name and its payload."""
        self.layout = layout
        self.fingerprint = fingerprint
        self._shards = shards
        self._index = index

    @classmethod
    def open(cls, root: Path, fingerprint: str, dataset: Dataset, parts: dict[str, str] | None = None) -> Self:
        """Open the cache `root/fingerprint` for `dataset`. With `parts`, error messages can say what differs.

        Raises:
            CacheMismatchError: only caches made from other parts exist, or this one is of another dataset.
            DataError: the cache is missing, incomplete or damaged, or lacks a sample of the dataset.
        """
        directory = find_cache(root, fingerprint, parts)
        reader = cls(*_read_directory(directory), fingerprint)
        missing = [key for key in dataset.samples["key"].to_pylist() if key not in reader]
        if missing:
            raise DataError(f"The cache {directory} lacks {len(missing)} samples, the first is {missing[0]}.", REBUILD)
        return reader

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: str) -> bool:
        return key in self._index

    @property
    def keys(self) -> list[str]:
        """All keys, in the order of the shards."""
        return list(self._index)

    def read(self, key: str, into: Features | None = None) -> Features:
        """Return the stored features of one sample. `into` (contiguous, matching `layout`) avoids an allocation.

        Raises:
            DataError: the key is unknown, or the shard is missing, truncated or corrupted. Names shard and key.
        """
        if key not in self._index:
            raise DataError(f"The feature cache holds no sample {key}.", REBUILD)
        shard, payload = self._index[key]
        arrays = into if into is not None else self.layout.new_arrays()
        buffers = [array.reshape(-1).view(np.uint8).data for array in in_file_order(arrays)]
        self._shards.read_into(shard, key, payload, buffers)
        return arrays


def _read_directory(directory: Path) -> tuple[Shards, dict[str, tuple[str, Member]], RecordLayout]:
    manifest = read_manifest(directory)
    layout = RecordLayout.from_manifest(manifest)
    indices = read_indices(directory, manifest)
    index = {key: (name, payload) for name, members in indices.items() for key, payload in members.items()}
    return Shards(directory / SHARDS_NAME, REBUILD), index, layout


def open_directory(directory: Path) -> FeatureReader:
    """Open a complete cache by its directory, without checking what it was made from."""
    return FeatureReader(*_read_directory(directory))


def open_features(cache: CacheConfig, datasets: Sequence[Dataset]) -> list[FeatureReader]:
    """Open the cache that `cache` specifies for each dataset of a mixture, in order.

    Raises:
        CacheMismatchError: a cache was made from other teachers, codecs or another dataset. Names what differs.
        DataError: a cache is missing, incomplete or damaged.
    """
    specs = [teacher_spec(teacher) for teacher in cache.all_teachers.values()]
    readers = []
    for dataset in datasets:
        fingerprint, parts = cache_fingerprint(cache, dataset.fingerprint, dataset.num_views, specs)
        readers.append(FeatureReader.open(cache.root, fingerprint, dataset, parts))
    return readers
