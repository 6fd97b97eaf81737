"""Batches for training and validation: order, reading, decoding and collation, ahead of the model in threads.

The only state is the position: the number of samples consumed over all ranks since the start of training.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from pokevla.data.batch import RobotBatch, VLMBatch
from pokevla.data.mixture import Mixture
from pokevla.recipe.schema import TrainRecipe

BatchT = TypeVar("BatchT", VLMBatch, RobotBatch)
BatchT_co = TypeVar("BatchT_co", VLMBatch, RobotBatch, covariant=True)


class SampleMaker(Protocol[BatchT_co]):
    """Makes batches out of rows of a mixture (`pokevla.data.samples`). Called by several threads."""

    def batch(self, positions: np.ndarray, datasets: np.ndarray, rows: np.ndarray, augment: bool) -> BatchT_co:
        """The samples (datasets[i], rows[i]) that stand at positions[i]; all (B,) int64."""
        ...


class TrainLoader(Generic[BatchT]):
    """Endless micro-batches of one rank, made ahead by threads; at most `prefetch` of them wait in memory."""

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
        """`make_batch` turns positions (micro,) into a batch; an error in it reaches the caller at that batch's turn.

        Rank r of micro-step m of step s gets positions s*B + m*world*micro + r*micro + [0, micro).
        """
        self._make_batch = make_batch
        self._stride, self._micro, self._rank = world_size * micro, micro, rank
        self._prefetch = prefetch
        self._next = start_position
        self._waiting: deque[Future[BatchT]] = deque()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pokevla-data")
        self.position = start_position
        """Samples consumed over all ranks, this rank's last batch included."""

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
        """Stop the threads; batches not yet made are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def build_loader(
    recipe: TrainRecipe,
    mixture: Mixture,
    samples: SampleMaker[BatchT],
    *,
    rank: int,
    world_size: int,
    start_position: int,
) -> TrainLoader[BatchT]:
    """Training batches of one rank, from a position on."""
    order = mixture.order(recipe.seed)

    def make_batch(positions: np.ndarray) -> BatchT:
        datasets, indices, _ = order.samples_at(positions)
        rows = [mixture.train_rows[d][i] for d, i in zip(datasets, indices, strict=True)]
        return samples.batch(positions, datasets, np.array(rows, dtype=np.int64), True)

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
    """Samples of `split` in a fixed order, centre crop, no augmentation; the last batch may be smaller.

    `max_samples` takes that many, evenly spread over the split. The statistics are those of training.
    """
    pairs = mixture.samples_of(split)
    if max_samples is not None and max_samples < len(pairs):
        pairs = pairs[np.linspace(0, len(pairs) - 1, max_samples).round().astype(np.int64)]
    for start in range(0, len(pairs), batch_size):
        part = pairs[start : start + batch_size]
        positions = np.arange(start, start + len(part), dtype=np.int64)
        yield samples.batch(positions, part[:, 0], part[:, 1], False)
