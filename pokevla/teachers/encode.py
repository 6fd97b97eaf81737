"""From the images of a dataset to features: reading, both teachers, quantising, several batches at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from pokevla.data.batch import VIEWS, FeatureArrays
from pokevla.data.reader import ShardReader
from pokevla.data.samples import decode_image, member
from pokevla.errors import DataError
from pokevla.recipe.sections import CacheConfig
from pokevla.teachers.codec import RecordLayout, encode_features
from pokevla.teachers.encoders import Teacher, build_teacher

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


@dataclass(frozen=True)
class Source:
    """Where images come from: `keys[row]` names the sample that `reader` reads at `row`."""

    reader: ShardReader
    keys: list[str]


@dataclass
class Counter:
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
class Encoder:
    """From rows to features, several batches at once: `pool` holds `workers` threads with few torch threads each."""

    source: Source
    teachers: Teachers
    layout: RecordLayout
    batch: int
    pool: ThreadPoolExecutor
    workers: int

    def features_of(self, rows: np.ndarray) -> list[FeatureArrays]:
        """Decode, encode and quantise one batch."""
        images = read_images(self.source.reader, rows, self.source.keys)
        return self.teachers.encode(images, self.layout)

    def run(self, rows: np.ndarray, counter: Counter) -> Iterator[tuple[str, FeatureArrays]]:
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
def encoding_threads(on_gpu: bool) -> Iterator[tuple[ThreadPoolExecutor, int]]:
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
