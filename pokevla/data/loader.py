"""Batches for training and validation. Threads read, decode and collate samples ahead of the model.

The only state is the position: the number of samples consumed by all ranks since the start of training.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from pokevla.data.batch import RobotBatch, VLMBatch
from pokevla.data.loading.memory import Allocate, page_aligned
from pokevla.data.mixture import Mixture
from pokevla.recipe.schema import TrainRecipe

BatchT = TypeVar("BatchT", VLMBatch, RobotBatch)
BatchT_co = TypeVar("BatchT_co", VLMBatch, RobotBatch, covariant=True)


class SampleMaker(Protocol[BatchT_co]):
    """Makes batches from rows of a mixture (`pokevla.data.samples`). Must be thread-safe."""

    def batch(
        self,
        positions: np.ndarray,
        datasets: np.ndarray,
        rows: np.ndarray,
        augment: bool,
        allocate: Allocate = page_aligned,
    ) -> BatchT_co:
        """A batch of the samples (datasets[i], rows[i]) at positions[i], each (B,) int64, in memory of `allocate`."""
        ...


class TrainLoader(Generic[BatchT]):
    """Infinite stream of micro-batches for one rank, prepared by threads. At most `prefetch` of them wait in memory."""

    def __init__(
        self,
        make_batch: Callable[[np.ndarray], BatchT],
        *,
        rank: int,
        world_size: int,
        micro: int,
        start_position: int = 0,
        threads: int = 2,
        prefetch: int = 4,
    ) -> None:
        """`make_batch` turns positions (micro,) into a batch. Its errors are raised when that batch is due.

        Rank r gets the positions s*B + m*world*micro + r*micro + [0, micro) in micro-step m of step s.
        """
        self._make_batch = make_batch
        self._stride, self._micro, self._rank = world_size * micro, micro, rank
        self._prefetch = prefetch
        self._next = start_position
        self._waiting: deque[Future[BatchT]] = deque()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pokevla-data")
        self.position = start_position
        """Number of samples consumed by all ranks, including this rank's last batch."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BatchT:
        while len(self._waiting) < self._prefetch:
            first = self._next + self._rank * self._micro
            positions = np.arange(first, first + self._micro, dtype=np.int64)
            self._waiting.append(self._pool.submit(self._make_batch, positions))
            self._next += self._stride
        batch = self._waiting.popleft().result()
        self.position += self._stride
        return batch

    def close(self) -> None:
        """Stop the threads and drop pending batches."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def batch_maker(
    recipe: TrainRecipe, mixture: Mixture, samples: SampleMaker[BatchT]
) -> Callable[[np.ndarray, Allocate], BatchT]:
    """A function that makes the training batch of positions (B,) int64, in memory of an allocator."""
    order = mixture.order(recipe.seed)

    def make_batch(positions: np.ndarray, allocate: Allocate) -> BatchT:
        datasets, indices, _ = order.samples_at(positions)
        return samples.batch(positions, datasets, mixture.rows_at(datasets, indices), True, allocate)

    return make_batch


def build_loader(
    recipe: TrainRecipe,
    mixture: Mixture,
    samples: SampleMaker[BatchT],
    *,
    rank: int,
    world_size: int,
    start_position: int,
    pin_memory: bool = False,
) -> TrainLoader[BatchT]:
    """Build the loader of one rank's training batches, starting at `start_position`, with threads of this process. With
    `pin_memory` they put them into pinned memory, from which a GPU copies by itself."""
    make = batch_maker(recipe, mixture, samples)

    def make_batch(positions: np.ndarray) -> BatchT:
        batch = make(positions, page_aligned)
        return batch.pin_memory() if pin_memory else batch

    return TrainLoader(
        make_batch,
        rank=rank,
        world_size=world_size,
        micro=recipe.batch.micro,
        start_position=start_position,
        threads=recipe.data.reader_threads,
        prefetch=recipe.data.prefetch_batches,
    )


def validation_batches(
    mixture: Mixture,
    samples: SampleMaker[BatchT],
    batch_size: int,
    *,
    split: str = "val",
    max_samples: int | None = None,
) -> Iterator[BatchT]:
    """Samples of `split` in a fixed order with a centre crop and no augmentation. The last batch may be smaller.

    `max_samples` selects that many, evenly spread over the split. The statistics are those of the training split.
    """
    held_out = mixture.samples_of(split)
    count = len(held_out) if max_samples is None else min(max_samples, len(held_out))
    for start in range(0, count, batch_size):
        places = np.arange(start, min(start + batch_size, count), dtype=np.int64)
        if count < len(held_out):
            places = np.linspace(0, len(held_out) - 1, count).round().astype(np.int64)[places]
        part = held_out.pairs(places)
        positions = np.arange(start, start + len(part), dtype=np.int64)
        yield samples.batch(positions, part[:, 0], part[:, 1], False)
