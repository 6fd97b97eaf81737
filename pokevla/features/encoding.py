"""Computes features from the images of a dataset: reads, encodes and quantises several batches in parallel."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from pokevla.data.dataset import Dataset
from pokevla.data.images.decoding import decode_image
from pokevla.data.mixture import mixture_embodiment
from pokevla.data.reader import ShardReader, member
from pokevla.data.tables.rows import SampleRows
from pokevla.errors import DataError
from pokevla.features.layout import Features, RecordLayout, encode_features
from pokevla.recipe.sections import CacheConfig
from pokevla.teachers.teacher import Teacher, build_teacher

Progress = Callable[[int, int], None]
LOOK_S = 2.0
"""Time between two looks at what other processes have finished."""


def build_teachers(cache: CacheConfig, device: str | None = None) -> list[Teacher]:
    """Build all teachers of a cache on `device`; None selects a GPU if available. Raises the errors of
    `build_teacher`."""
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return [build_teacher(teacher, chosen) for teacher in cache.all_teachers.values()]


def encode_images(teachers: Sequence[Teacher], images: np.ndarray) -> dict[str, np.ndarray]:
    """Fields of all teachers for uncropped images (B, V, H, W, 3) uint8: float32 (B, V, C, G, G) or (B, V, N, T)."""
    pixels = torch.from_numpy(images)
    return {name: values.cpu().numpy() for one in teachers for name, values in one.encode(pixels).items()}


@dataclass(frozen=True)
class Source:
    """A source of images: `reader` reads the sample at a row, whose key `rows` knows."""

    reader: ShardReader
    rows: SampleRows
    views: tuple[str, ...]

    def key(self, row: int) -> str:
        """Key of the sample at a row."""
        return self.rows.text("key", int(row))


def image_source(dataset: Dataset) -> Source:
    """The images of a robot dataset. The caller closes the reader. Raises DataError for a dataset of questions."""
    views = mixture_embodiment([dataset]).views
    return Source(ShardReader(dataset), dataset.rows, views)


class Counter:
    """Counts finished samples, those of other processes too, and calls `listener` after each change."""

    def __init__(
        self, done: int, total: int, listener: Progress | None, elsewhere: Callable[[], int] = lambda: 0
    ) -> None:
        """`done`: samples that were finished before; `elsewhere`: how many others have finished since then. It looks at
        the disk, so it is asked every `LOOK_S` seconds at most."""
        self._before, self._own, self._total = done, 0, total
        self._listener, self._elsewhere = listener, elsewhere
        self._others, self._looked = 0, float("-inf")

    def add(self, count: int) -> None:
        """Count `count` more samples of this process and call the listener."""
        self._own += count
        self.tell()

    def tell(self) -> None:
        """Call the listener."""
        if self._listener is None:
            return
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._others, self._looked = self._elsewhere(), now
        self._listener(self._before + self._own + self._others, self._total)

    def complete(self) -> None:
        """Call the listener with the total, if it has not heard of it."""
        if self._listener is not None and self._before + self._own + self._others != self._total:
            self._listener(self._total, self._total)


@dataclass(frozen=True)
class Encoder:
    """Computes features of rows, several batches in parallel. `pool` has `workers` threads with few torch threads
    each."""

    source: Source
    teachers: Sequence[Teacher]
    layout: RecordLayout
    batch: int
    pool: ThreadPoolExecutor
    workers: int

    def features_of(self, rows: np.ndarray) -> list[Features]:
        """Decode, encode and quantise one batch. Raises DataError naming the sample whose features are not finite."""
        images, keys = read_images(self.source, rows), [self.source.key(row) for row in rows]
        return encode_features(encode_images(self.teachers, images), self.layout, keys)

    def run(self, rows: np.ndarray, counter: Counter) -> Iterator[tuple[str, Features]]:
        """Yield (key, features) of `rows` in order."""
        chunks = deque(rows[start : start + self.batch] for start in range(0, len(rows), self.batch))
        pending: deque[tuple[np.ndarray, Future[list[Features]]]] = deque()
        while chunks or pending:
            while chunks and len(pending) <= self.workers:
                chunk = chunks.popleft()
                pending.append((chunk, self.pool.submit(self.features_of, chunk)))
            chunk, future = pending.popleft()
            for row, features in zip(chunk, future.result(), strict=True):
                yield self.source.key(row), features
            counter.add(len(chunk))


@contextmanager
def encoding_threads(on_gpu: bool) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Yield a pool whose threads encode one batch each, and their number. torch's own threads are divided among them.

    Parallelism is over batches rather than within operators: small operators lose more time to thread synchronisation
    than they gain. With a GPU two threads are enough: one decodes while the other encodes.
    """
    before = torch.get_num_threads()
    workers = 2 if on_gpu else max(1, min(4, os.cpu_count() or 1))
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(max(1, before // workers),)) as pool:
        try:
            yield pool, workers
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)


def read_images(source: Source, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the uncropped images of `rows`, (B, V, H, W, 3) uint8, views in the order of the embodiment.

    Raises:
        DataError: a sample is damaged, or images have different sizes.
    """
    samples = []
    for row in rows:
        members, key = source.reader.read(int(row)), source.key(row)
        samples.append([np.asarray(decode_image(member(members, f"{view}.jpg", key), key)) for view in source.views])
    shapes = {view.shape for sample in samples for view in sample}
    if len(shapes) > 1:
        near = source.key(rows[0])
        raise DataError(f"Images around sample {near} have different sizes.", "Convert the dataset again.")
    return np.asarray(samples, dtype=np.uint8)
