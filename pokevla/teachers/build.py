"""Building a cache: every image of a dataset through both teachers, once."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import pokevla
from pokevla.data.batch import VIEWS, FeatureArrays
from pokevla.data.dataset import SHARDS_NAME, Dataset, open_dataset
from pokevla.data.reader import ShardReader
from pokevla.data.samples import decode_image, member
from pokevla.data.shard_index import index_path
from pokevla.errors import DataError, DiskFullError
from pokevla.recipe.schema import CacheConfig
from pokevla.teachers.codec import ALIGNMENT, RecordLayout, encode_features
from pokevla.teachers.encoders import RANDOM_NOTE, Teacher, build_teacher
from pokevla.teachers.fingerprint import cache_fingerprint, cache_layout
from pokevla.teachers.shards import write_shard
from pokevla.teachers.store import COMPLETE_NAME, build_lock, write_manifest

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Teachers:
    """Both teachers on one device."""

    sam: Teacher
    vggt: Teacher

    def encode(self, images: np.ndarray, layout: RecordLayout) -> list[FeatureArrays]:
        """Encode and quantise images (B, V, H, W, 3) uint8, one entry per sample."""
        pixels = torch.from_numpy(images)
        sam = self.sam.encode(pixels).cpu().numpy()
        vggt = self.vggt.encode(pixels).cpu().numpy()
        return encode_features(sam, vggt, layout)


def build_teachers(cache: CacheConfig, device: str | None = None) -> Teachers:
    """Build both teachers on `device`; None takes a GPU if there is one."""
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Teachers(build_teacher(cache.sam, place), build_teacher(cache.vggt, place))


def build_cache(
    dataset_root: Path,
    cache: CacheConfig,
    batch: int = 8,
    on_progress: Progress | None = None,
    device: str | None = None,
) -> Path:
    """Compute the cache of one robot dataset and return its directory. A finished cache is returned as it is.

    A feature shard per dataset shard, with the same keys in the same order. Shards that a killed build finished are
    kept; the rest is made. `on_progress(done, total)` counts samples, those of finished shards first.

    Raises:
        DataError: not a robot dataset, damaged shards, images that are not square, or features that are not finite.
        CheckpointError: teacher weights that are missing or do not fit.
        DiskFullError: no room. Finished shards stay, nothing half-written does.
        UsageError: another process is building this cache.
    """
    dataset = open_dataset(dataset_root)
    if dataset.kind != "robot":
        raise DataError(f"{dataset_root} is a {dataset.kind} dataset; features are cached for robot datasets.")
    teachers = build_teachers(cache, device)
    layout = cache_layout(cache)
    specs = (teachers.sam.spec, teachers.vggt.spec)
    fingerprint, parts = cache_fingerprint(cache, dataset.fingerprint, specs)
    directory = cache.root / fingerprint
    rows_by_shard = _rows_by_shard(dataset)
    total = dataset.samples.num_rows
    if (directory / COMPLETE_NAME).is_file():
        if on_progress is not None:
            on_progress(total, total)
        return directory
    with build_lock(directory):
        shards = directory / SHARDS_NAME
        missing = [name for name in rows_by_shard if not index_path(shards / name).is_file()]
        remaining = sum(len(rows_by_shard[name]) for name in missing)
        _check_room(directory, remaining * (layout.payload_bytes + ALIGNMENT))
        source = _Source(ShardReader(dataset), dataset.samples["key"].to_pylist())
        counter = _Counter(total - remaining, total, on_progress)
        try:
            with _threads(teachers.sam.device.type != "cpu") as (pool, workers):
                encoder = _Encoder(source, teachers, layout, batch, pool, workers)
                for name in missing:
                    write_shard(shards / name, encoder.run(rows_by_shard[name], counter), layout)
        finally:
            source.reader.close()
        write_manifest(directory, _manifest(fingerprint, parts, layout, rows_by_shard, dataset, cache, teachers))
    return directory


@dataclass(frozen=True)
class _Source:
    """Where images come from: `keys[row]` names the sample that `reader` reads at `row`."""

    reader: ShardReader
    keys: list[str]


@dataclass
class _Counter:
    """Samples done so far, told to `listener` whenever there are more."""

    done: int
    total: int
    listener: Progress | None

    def add(self, count: int) -> None:
        """Count `count` more samples and tell the listener."""
        self.done += count
        if self.listener is not None:
            self.listener(self.done, self.total)


@dataclass(frozen=True)
class _Encoder:
    """From rows to features, several batches at once: `pool` holds `workers` threads with few torch threads each."""

    source: _Source
    teachers: Teachers
    layout: RecordLayout
    batch: int
    pool: ThreadPoolExecutor
    workers: int

    def features_of(self, rows: np.ndarray) -> list[FeatureArrays]:
        """Decode, encode and quantise one batch."""
        images = read_images(self.source.reader, rows, self.source.keys)
        return self.teachers.encode(images, self.layout)

    def run(self, rows: np.ndarray, counter: _Counter) -> Iterator[tuple[str, FeatureArrays]]:
        """Yield (key, features) of `rows` in order."""
        chunks = deque(rows[start : start + self.batch] for start in range(0, len(rows), self.batch))
        pending: deque[tuple[np.ndarray, Future[list[FeatureArrays]]]] = deque()
        while chunks or pending:
            while chunks and len(pending) <= self.workers:
                chunk = chunks.popleft()
                pending.append((chunk, self.pool.submit(self.features_of, chunk)))
            chunk, future = pending.popleft()
            for row, features in zip(chunk, future.result(), strict=True):
                yield self.source.keys[row], features
            counter.add(len(chunk))


@contextmanager
def _threads(on_gpu: bool) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Yield threads that each encode a batch, and their number; torch's own threads are shared out among them.

    Batches in parallel, rather than operators: small operators spend more time waiting for each other's threads than
    they save. With a GPU two are enough, one decodes while the other encodes.
    """
    before = torch.get_num_threads()
    workers = 2 if on_gpu else max(1, min(4, os.cpu_count() or 1))
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(max(1, before // workers),)) as pool:
        try:
            yield pool, workers
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)


def read_images(reader: ShardReader, rows: Sequence[int] | np.ndarray, keys: list[str]) -> np.ndarray:
    """Return the clean images of some rows, (B, V, H, W, 3) uint8, views in the order base, wrist.

    Raises:
        DataError: a damaged sample, or images of different sizes.
    """
    samples = []
    for row in rows:
        members, key = reader.read(int(row)), keys[int(row)]
        samples.append([np.asarray(decode_image(member(members, f"{view}.jpg", key), key)) for view in VIEWS])
    shapes = {view.shape for sample in samples for view in sample}
    if len(shapes) > 1:
        near = keys[int(rows[0])]
        raise DataError(f"Images around sample {near} have different sizes.", "Convert the dataset again.")
    return np.asarray(samples, dtype=np.uint8)


def _rows_by_shard(dataset: Dataset) -> dict[str, np.ndarray]:
    """Rows of each shard that has any, by file name, in file order."""
    shards = dataset.samples["shard"].to_numpy()
    return {name: rows for i, name in enumerate(dataset.shard_names) if (rows := np.flatnonzero(shards == i)).size}


def _check_room(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DiskFullError(
            f"{directory} needs {needed / 2**30:.2f} GiB more, its disk has {free / 2**30:.2f} GiB left.",
            "Free some space, or set cache.root to another disk.",
        )


def _manifest(
    fingerprint: str,
    parts: dict[str, str],
    layout: RecordLayout,
    rows_by_shard: dict[str, np.ndarray],
    dataset: Dataset,
    cache: CacheConfig,
    teachers: Teachers,
) -> dict[str, Any]:
    specs = {"sam": teachers.sam.spec, "vggt": teachers.vggt.spec}
    return {
        "fingerprint": fingerprint,
        "parts": parts,
        "layout": layout.to_dict(),
        "num_samples": dataset.samples.num_rows,
        "payload_bytes": layout.payload_bytes,
        "shards": list(rows_by_shard),
        "random": {name: spec.random for name, spec in specs.items()},
        "teachers": {name: spec.describe() for name, spec in specs.items()},
        "note": RANDOM_NOTE if any(spec.random for spec in specs.values()) else None,
        "versions": {
            "pokevla": pokevla.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "origin": {
            "dataset": str(dataset.root.absolute()),
            "cache": _with_absolute_paths(cache).model_dump(mode="json"),
        },
    }


def _with_absolute_paths(cache: CacheConfig) -> CacheConfig:
    """The same cache, named so that it is found from any directory."""
    teachers = {
        name: teacher.model_copy(update={"weights": teacher.weights.absolute() if teacher.weights else None})
        for name, teacher in (("sam", cache.sam), ("vggt", cache.vggt))
    }
    return cache.model_copy(update={"root": cache.root.absolute(), **teachers})
