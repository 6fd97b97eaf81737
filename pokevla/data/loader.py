"""Batches for training and validation. Threads read, decode and collate samples ahead of the model.

The only state is the position: the number of samples consumed by all ranks since the start of training.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import is_dataclass, replace
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from pokevla.data.batch import RobotBatch, VLMBatch, tensors_of
from pokevla.data.loading.memory import Allocate, page_aligned
from pokevla.data.loading.meter import Effort, LoadMeter
from pokevla.data.loading.packing import GlobalBatches, TokenCounts, packed
from pokevla.data.loading.watch import Watch, WatchedMaker
from pokevla.data.mixture import Mixture
from pokevla.recipe.schema import PretrainRecipe, TrainRecipe
from pokevla.shards.reading import NO_READ

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

    def text_lengths(self, datasets: np.ndarray, rows: np.ndarray, num_vision: int) -> np.ndarray:
        """(n,) characters of the texts of samples, each argument (n,) int64; more for those with more images than one,
        which take `num_vision` tokens each."""
        ...

    def token_counts(self, datasets: np.ndarray, rows: np.ndarray, num_vision: int) -> TokenCounts:
        """Tokens of samples, each argument (n,) int64, with `num_vision` tokens of each image."""
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
        watch: Watch | None = None,
    ) -> None:
        """`make_batch` turns positions (micro,) into a batch. Its errors are raised when that batch is due; one of a
        read that never ends, which `watch` notices, at once.

        Rank r gets the positions s*B + m*world*micro + r*micro + [0, micro) in micro-step m of step s.
        """
        self._make_batch, self._watch = make_batch, watch
        self._stride, self._micro, self._rank = world_size * micro, micro, rank
        self._prefetch = prefetch
        self._next = start_position
        self._waiting: deque[Future[tuple[BatchT, Effort]]] = deque()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pokevla-data")
        self.position = start_position
        """Number of samples consumed by all ranks, including this rank's last batch."""
        self.meter = LoadMeter()
        """What the loader does, for the lines of metrics."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BatchT:
        while len(self._waiting) < self._prefetch:
            first = self._next + self._rank * self._micro
            positions = np.arange(first, first + self._micro, dtype=np.int64)
            self._waiting.append(self._pool.submit(self._made, positions))
            self._next += self._stride
        ahead = next((count for count, each in enumerate(self._waiting) if not each.done()), len(self._waiting))
        batch, effort = self._result(self._waiting.popleft())
        self.position += self._stride
        self.meter.add(ahead, effort, getattr(batch, "skipped", ()))
        return batch

    def _result(self, future: Future[tuple[BatchT, Effort]]) -> tuple[BatchT, Effort]:
        if self._watch is None:
            return future.result()
        while not wait((future,), timeout=self._watch.interval_s).done:
            for error in self._watch.overdue().values():
                raise error
        return future.result()

    def _made(self, positions: np.ndarray) -> tuple[BatchT, Effort]:
        begun, begun_cpu = time.perf_counter(), time.thread_time()
        batch = self._make_batch(positions)
        num_bytes = sum(tensor.nbytes for tensor in tensors_of(batch)) if is_dataclass(batch) else 0
        slowest = NO_READ if self._watch is None else self._watch.log.take_slowest()
        return batch, Effort(time.perf_counter() - begun, time.thread_time() - begun_cpu, num_bytes, slowest)

    def close(self) -> None:
        """Stop the threads and drop pending batches. Does not wait for a thread whose read never ends."""
        is_stuck = self._watch is not None and bool(self._watch.overdue())
        self._pool.shutdown(wait=not is_stuck, cancel_futures=True)
        self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def batch_maker(
    recipe: TrainRecipe, mixture: Mixture, samples: SampleMaker[BatchT], num_vision: int = 0
) -> WatchedMaker:
    """A function that makes the training batch of positions (B,) int64, in memory of an allocator. `num_vision`: tokens
    of an image in the model's sequence."""
    order = mixture.order(recipe.seed)

    def lengths_at(positions: np.ndarray) -> np.ndarray:
        datasets, indices, _ = order.samples_at(positions)
        return samples.text_lengths(datasets, mixture.rows_at(datasets, indices), num_vision)

    def counts_at(positions: np.ndarray) -> TokenCounts:
        datasets, indices, _ = order.samples_at(positions)
        return samples.token_counts(datasets, mixture.rows_at(datasets, indices), num_vision)

    divided = _global_batches(recipe, counts_at)

    def make_batch(positions: np.ndarray, allocate: Allocate) -> BatchT:
        share = divided.share(int(positions[0])) if divided is not None else None
        if share is not None and share.rows is not None:
            positions = share.positions
        elif recipe.data.sort_by_length:
            positions = sorted_positions(positions, recipe.batch.global_, lengths_at)
        datasets, indices, _ = order.samples_at(positions)
        batch = samples.batch(positions, datasets, mixture.rows_at(datasets, indices), True, allocate)
        if share is not None and isinstance(batch, VLMBatch):
            batch = replace(batch, loss_divisor=share.divisor)
            return batch if share.rows is None else packed(batch, share.rows, num_vision)
        return batch

    return WatchedMaker(make_batch, Watch(mixture.storage.log, mixture.storage.settings.timeout_s))


def _global_batches(recipe: TrainRecipe, counts_at: Callable[[np.ndarray], TokenCounts]) -> GlobalBatches | None:
    """What divides global batches; None where a micro-batch needs to know nothing of the others."""
    if not isinstance(recipe, PretrainRecipe):
        return None
    packing, average = recipe.packing, recipe.loss.average
    if packing is None and average == "samples":
        return None
    tokens = None if packing is None else packing.tokens
    return GlobalBatches(counts_at, recipe.batch.global_, recipe.batch.micro, tokens=tokens, average=average)


def sorted_positions(positions: np.ndarray, batch: int, lengths_at: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The positions (B,) that come in the place of `positions` when each global batch is sorted by length.

    A global batch is `batch` positions from a multiple of it; `positions` lie in one. It is a function of the global
    batch alone, so ranks agree on it without talking to each other.
    """
    first = positions[0] // batch * batch
    whole = np.arange(first, first + batch, dtype=np.int64)
    return whole[np.argsort(lengths_at(whole), kind="stable")[positions - first]]


def build_loader(
    recipe: TrainRecipe,
    mixture: Mixture,
    samples: SampleMaker[BatchT],
    *,
    rank: int,
    world_size: int,
    start_position: int,
    pin_memory: bool = False,
    num_vision: int = 0,
) -> TrainLoader[BatchT]:
    """Build the loader of one rank's training batches, starting at `start_position`, with threads of this process. With
    `pin_memory` they put them into pinned memory, from which a GPU copies by itself. `num_vision`: tokens of an image
    in the model's sequence."""
    make = batch_maker(recipe, mixture, samples, num_vision)

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
        watch=make.watch,
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
