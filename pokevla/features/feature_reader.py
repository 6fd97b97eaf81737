"""Reads cached features by the row of the dataset or by key, directly from the shards into numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from pokevla.data.dataset import SHARDS_NAME, Dataset
from pokevla.errors import DataError
from pokevla.features.cache_files import (
    INDEX_CHECKSUMS,
    MANIFEST_NAME,
    find_cache,
    read_manifest,
    refuse_missing_shards,
)
from pokevla.features.fingerprint import cache_fingerprint
from pokevla.features.layout import REBUILD, Features, FieldLayout, RecordLayout, in_file_order
from pokevla.recipe.sections import CacheConfig, ChecksumRule
from pokevla.shards.remote.storage import Storage
from pokevla.shards.shard_reader import Shards
from pokevla.teachers.teacher import teacher_spec


class FeatureReader:
    """Cached features of one dataset. Thread-safe.

    A cache has the dataset's keys in the dataset's shards, in the same order. So a row of the dataset says where its
    record is, and no table of keys is needed.
    """

    def __init__(
        self, directory: Path, dataset: Dataset | None, fingerprint: str, checksums: ChecksumRule = "every_read"
    ) -> None:
        """Prefer `FeatureReader.open`, `open_directory` or `open_features`. Without `dataset`, records are read by key
        only. Opens no shard."""
        storage = dataset.storage if dataset is not None else Storage()
        manifest = read_manifest(directory)
        refuse_missing_shards(directory, manifest)
        self.layout, self.fingerprint = RecordLayout.from_manifest(manifest), fingerprint
        self._directory, self._dataset = directory, dataset
        self._shards = Shards(
            directory / SHARDS_NAME,
            REBUILD,
            manifest.get(INDEX_CHECKSUMS, {}),
            source=storage.source(directory, MANIFEST_NAME, SHARDS_NAME),
            log=storage.log,
        )
        self._names: list[str] = manifest["shards"]
        self._num_samples: int = manifest["num_samples"]
        self._size = self.layout.payload_bytes
        if dataset is not None:
            self._refuse_another_size(dataset)
            self._rows, self._shard_names = dataset.rows, dataset.shard_names
            self._known = bytearray(len(dataset.shard_names))  # 1 for shards whose keys have been compared
            is_once = checksums == "first_read"
            self._verified = bytearray(-(-len(dataset.rows) // 8)) if is_once else None  # a bit per record

    @classmethod
    def open(
        cls,
        root: Path,
        fingerprint: str,
        dataset: Dataset,
        parts: dict[str, str] | None = None,
        checksums: ChecksumRule = "every_read",
    ) -> Self:
        """Open the cache `root/fingerprint` for `dataset`. With `parts`, error messages can say what differs.

        Raises:
            CacheMismatchError: only caches made from other parts exist, or this one is of another dataset.
            DataError: the cache is missing or incomplete, its manifest is damaged, or it lacks a shard of the dataset.
        """
        return cls(find_cache(root, fingerprint, parts), dataset, fingerprint, checksums)

    @classmethod
    def of(cls, directory: Path, dataset: Dataset) -> Self:
        """Open a complete cache of `dataset` by its directory. Raises the DataErrors of `open`."""
        return cls(directory, dataset, "")

    def __len__(self) -> int:
        return self._num_samples

    @property
    def fields(self) -> Sequence[FieldLayout]:
        """The fields in the order of a record."""
        return self.layout.fields

    @property
    def keys(self) -> list[str]:
        """All keys, in the order of the shards. Reads every index: for tools and tests."""
        return [entry.key for name in self._names for entry in self._shards.index(name)]

    def read_row(self, row: int, buffers: Sequence[memoryview]) -> None:
        """Read the record of a row of the dataset into `buffers`, which have the sizes of `in_file_order`.

        Raises:
            DataError: the shard or its index is missing, truncated or corrupted, or does not have the keys of the
                dataset. Names shard and key.
        """
        shard, number = self._rows.shard_of(row)
        name = self._shard_names[shard]
        if not self._known[shard]:
            self._refuse_other_keys(shard, name)
        if self._verified is None:
            self._shards.read_record(name, number, buffers, self._size)
            return
        byte, bit = row >> 3, 1 << (row & 7)
        is_new = not self._verified[byte] & bit
        self._shards.read_record(name, number, buffers, self._size, check=is_new)
        if is_new:  # two threads may lose a bit of each other: that record is checked once more
            self._verified[byte] |= bit

    def ahead(self, rows: Sequence[int]) -> None:
        """This thread reads the records of `rows` next (`Shards.ahead`)."""
        if self._shards.gains_by_ahead:
            places = (self._rows.shard_of(row) for row in rows)
            self._shards.ahead([(self._shard_names[shard], number) for shard, number in places])

    def read_features(self, row: int) -> Features:
        """The stored features of a row of the dataset, in new arrays. Raises the errors of `read_row`."""
        return self._filled(None, lambda buffers: self.read_row(row, buffers))

    def read(self, key: str, into: Features | None = None) -> Features:
        """The stored features of one sample by its key, for tools and tests: it looks through the indices.

        `into` (contiguous, matching `layout`) avoids an allocation.

        Raises:
            DataError: the key is unknown, or the shard is missing, truncated or corrupted. Names shard and key.
        """
        name, number = self._find(key)
        return self._filled(into, lambda buffers: self._shards.read_record(name, number, buffers, self._size))

    def _filled(self, into: Features | None, read: Callable[[Sequence[memoryview]], None]) -> Features:
        arrays = into if into is not None else self.layout.new_arrays()
        read([array.reshape(-1).view(np.uint8).data for array in in_file_order(arrays)])
        return arrays

    def _find(self, key: str) -> tuple[str, int]:
        places: Iterator[tuple[str, int]] = ((name, self._shards.index(name).find(key)) for name in self._names)
        found = next((place for place in places if place[1] >= 0), None)
        if found is None:
            raise DataError(f"The feature cache holds no sample {key}.", REBUILD)
        return found

    def _refuse_another_size(self, dataset: Dataset) -> None:
        sizes = np.diff(dataset.rows.shard_starts)
        expected = [name for name, size in zip(dataset.shard_names, sizes, strict=True) if size]
        present = set(self._names)
        if absent := [name for name in expected if name not in present]:
            raise DataError(f"The cache {self._directory} lacks the shard {absent[0]} of the dataset.", REBUILD)
        if self._num_samples != len(dataset.rows):
            raise DataError(
                f"The cache {self._directory} has {self._num_samples} samples, its dataset {len(dataset.rows)}.",
                REBUILD,
            )

    def _refuse_other_keys(self, shard: int, name: str) -> None:
        start, stop = self._rows.shard_starts[shard : shard + 2]
        if not self._shards.index(name).has_keys(self._rows.texts("key", int(start), int(stop))):
            raise DataError(f"{self._directory / SHARDS_NAME / name} does not have the keys of its dataset.", REBUILD)
        self._known[shard] = 1


def open_directory(directory: Path) -> FeatureReader:
    """Open a complete cache by its directory, without checking what it was made from: for tools. Reads every index.

    Raises:
        DataError: the cache is missing, incomplete or damaged.
    """
    reader = FeatureReader(directory, None, "")
    if len(reader.keys) != len(reader):
        raise DataError(f"{directory} holds {len(reader.keys)} samples, its manifest says {len(reader)}.", REBUILD)
    return reader


def open_features(cache: CacheConfig, datasets: Sequence[Dataset]) -> list[FeatureReader]:
    """Open the cache that `cache` specifies for each dataset of a mixture, in order.

    Raises:
        CacheMismatchError: a cache was made from other teachers, codecs or another dataset. Names what differs.
        DataError: a cache is missing or incomplete, its manifest is damaged, or it lacks a shard of its dataset.
    """
    specs = [teacher_spec(teacher) for teacher in cache.all_teachers.values()]
    readers = []
    for dataset in datasets:
        fingerprint, parts = cache_fingerprint(cache, dataset.fingerprint, dataset.num_views, specs)
        readers.append(FeatureReader.open(cache.root, fingerprint, dataset, parts, cache.checksums))
    return readers
