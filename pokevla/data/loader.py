"""Batches for training and validation: order, reading, decoding and collation, ahead of the model in threads.

The only state is the position: the number of samples consumed over all ranks since the start of training.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Self, TypeVar

import numpy as np

from pokevla.data.batch import FeatureSource, RobotBatch, VLMBatch
from pokevla.data.dataset import Dataset, mixture_statistics, open_mixture, shard_sizes, usable_rows
from pokevla.data.order import Order
from pokevla.data.samples import RobotSampleMaker, VLMSampleMaker
from pokevla.data.statistics import Statistics
from pokevla.errors import DataError
from pokevla.recipe.schema import PosttrainRecipe, PretrainRecipe
from pokevla.recipe.sections import DataConfig

BatchT = TypeVar("BatchT", VLMBatch, RobotBatch)


class TrainLoader(Generic[BatchT]):
    """Endless micro-batches of one rank, made ahead by threads; at most `prefetch` of them wait in memory."""

    def __init__(
        self,
        make_batch: Callable[[np.ndarray], BatchT],
        *,
        rank: int,
        world_size: int,
        micro: int,
        global_batch: int,
        start_position: int = 0,
        threads: int = 2,
        prefetch: int = 4,
        sizes: Sequence[int] = (),
        statistics: Statistics | None = None,
    ) -> None:
        """`make_batch` turns positions (micro,) into a batch; an error in it reaches the caller at that batch's turn.

        Rank r of micro-step m of step s gets positions s*B + m*world*micro + r*micro + [0, micro).
        Raises DataError when the global batch is not a multiple of micro times world size.
        """
        if global_batch % (micro * world_size) or not 0 <= rank < world_size:
            raise DataError(
                f"global batch {global_batch} is not a multiple of micro {micro} x world {world_size}, "
                f"or rank {rank} is out of range.",
                "Change batch.global or batch.micro.",
            )
        self._make_batch = make_batch
        self._stride, self._micro, self._rank = world_size * micro, micro, rank
        self._prefetch = prefetch
        self._next = start_position
        self._waiting: deque[Future[BatchT]] = deque()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pokevla-data")
        self.position = start_position
        """Samples consumed over all ranks, this rank's last batch included."""
        self.data_wait_s = 0.0
        """Seconds the caller has waited for batches since the start."""
        self.sizes = list(sizes)
        """Usable samples of each dataset of the mixture."""
        self.statistics = statistics
        """Normalisation of a robot mixture, to be exported with the model; None for VLM data."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BatchT:
        while len(self._waiting) < self._prefetch:
            first = self._next + self._rank * self._micro
            positions = np.arange(first, first + self._micro, dtype=np.int64)
            self._waiting.append(self._pool.submit(self._make_batch, positions))
            self._next += self._stride
        before = time.perf_counter()
        batch = self._waiting.popleft().result()
        self.data_wait_s += time.perf_counter() - before
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


def build_robot_loader(
    recipe: PosttrainRecipe,
    *,
    rank: int,
    world_size: int,
    start_position: int,
    tokenizer: Any,
    image_size: int,
    mask_size: int | None,
    feature_reader: FeatureSource | Sequence[FeatureSource] | None = None,
) -> TrainLoader[RobotBatch]:
    """Training batches of demonstrations for one rank.

    `mask_size` None leaves masks out; `feature_reader` serves all datasets, or is a list with one per dataset.
    Raises DataError for a missing or unfit dataset, or one without masks when masks are asked for.
    """
    datasets = open_mixture(recipe.data, "robot")
    rows = [usable_rows(d, recipe.data.train_split, recipe.data.chunk_length) for d in datasets]
    statistics = mixture_statistics(datasets)
    maker = RobotSampleMaker(
        datasets, statistics, recipe.data, recipe.seed, tokenizer, image_size, mask_size, feature_reader
    )
    return _loader(recipe, datasets, rows, maker.batch, rank, world_size, start_position, statistics)


def build_vlm_loader(
    recipe: PretrainRecipe, *, rank: int, world_size: int, start_position: int, tokenizer: Any, image_size: int
) -> TrainLoader[VLMBatch]:
    """Training batches of questions and answers for one rank. Raises DataError for a missing or unfit dataset."""
    datasets = open_mixture(recipe.data, "vlm")
    rows = [usable_rows(d, recipe.data.train_split) for d in datasets]
    maker = VLMSampleMaker(datasets, recipe.data, recipe.seed, tokenizer, image_size)
    return _loader(recipe, datasets, rows, maker.batch, rank, world_size, start_position, None)


def build_order(config: DataConfig, seed: int, datasets: Sequence[Dataset], rows: Sequence[np.ndarray]) -> Order:
    """The order in which a recipe goes through the usable `rows` of its datasets."""
    return Order(
        seed,
        [shard_sizes(d, r) for d, r in zip(datasets, rows, strict=True)],
        [source.weight for source in config.datasets],
        config.shuffle_window,
        [d.fingerprint for d in datasets],
    )


def _loader(
    recipe: PretrainRecipe | PosttrainRecipe,
    datasets: Sequence[Dataset],
    rows: Sequence[np.ndarray],
    make: Callable[[np.ndarray, np.ndarray, np.ndarray, bool], Any],
    rank: int,
    world_size: int,
    start_position: int,
    statistics: Statistics | None,
) -> TrainLoader[Any]:
    """Join order and sample maker to a loader."""
    order = build_order(recipe.data, recipe.seed, datasets, rows)

    def make_batch(positions: np.ndarray) -> Any:
        which, indices, _ = order.samples_at(positions)
        chosen = np.array([rows[d][i] for d, i in zip(which, indices, strict=True)], dtype=np.int64)
        return make(positions, which, chosen, True)

    return TrainLoader(
        make_batch,
        rank=rank,
        world_size=world_size,
        micro=recipe.batch.micro,
        global_batch=recipe.batch.global_,
        start_position=start_position,
        threads=recipe.data.reader_threads,
        prefetch=recipe.data.prefetch_batches,
        sizes=[len(r) for r in rows],
        statistics=statistics,
    )


def validation_batches(
    recipe: PretrainRecipe | PosttrainRecipe,
    *,
    tokenizer: Any,
    image_size: int,
    batch_size: int,
    mask_size: int | None = None,
    feature_reader: FeatureSource | Sequence[FeatureSource] | None = None,
    split: str = "val",
    max_samples: int | None = None,
) -> Iterator[VLMBatch | RobotBatch]:
    """Samples of `split` in a fixed order, centre crop, no augmentation; the last batch may be smaller.

    `max_samples` takes that many, evenly spread over the split. The statistics are those of training. Raises DataError
    when the split is empty (at the first batch).
    """
    kind = "robot" if isinstance(recipe, PosttrainRecipe) else "vlm"
    datasets = open_mixture(recipe.data, kind)
    chunk = recipe.data.chunk_length if kind == "robot" else 1
    pairs = np.array([(d, row) for d, ds in enumerate(datasets) for row in usable_rows(ds, split, chunk)])
    if max_samples is not None and max_samples < len(pairs):
        pairs = pairs[np.linspace(0, len(pairs) - 1, max_samples).round().astype(np.int64)]
    if isinstance(recipe, PosttrainRecipe):
        statistics = mixture_statistics(datasets)
        maker: RobotSampleMaker | VLMSampleMaker = RobotSampleMaker(
            datasets, statistics, recipe.data, recipe.seed, tokenizer, image_size, mask_size, feature_reader
        )
    else:
        maker = VLMSampleMaker(datasets, recipe.data, recipe.seed, tokenizer, image_size)
    for start in range(0, len(pairs), batch_size):
        part = pairs[start : start + batch_size]
        positions = np.arange(start, start + len(part), dtype=np.int64)
        yield maker.batch(positions, part[:, 0], part[:, 1], False)
