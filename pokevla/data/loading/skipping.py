"""Damaged samples: others of the same dataset take their places, up to a share (`data.damaged: skip`)."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from pokevla.data.batch import RobotBatch, Skipped, VLMBatch
from pokevla.data.dataset import SHARDS_NAME
from pokevla.data.loading.memory import Allocate, page_aligned
from pokevla.data.loading.packing import TokenCounts
from pokevla.data.mixture import Mixture, chunk_length
from pokevla.data.randomness import raw
from pokevla.data.tables.row_set import RowSet
from pokevla.errors import DamagedDataError, DataError
from pokevla.recipe.checking.datasets import ALL_SPLITS
from pokevla.recipe.schema import TrainRecipe

if TYPE_CHECKING:
    from pokevla.data.loader import SampleMaker

BatchT = TypeVar("BatchT", VLMBatch, RobotBatch)

MAX_DRAWS = 16
"""Samples that are tried in the place of a damaged one. Where one in a hundred is damaged, none needs 4. Ours."""
_REMEDY = (
    "`pokevla data verify` and `pokevla cache verify` name what is damaged: restore or rebuild it, or raise "
    "data.max_damaged."
)


def skipping_damage(samples: SampleMaker[Any], recipe: TrainRecipe, mixture: Mixture) -> SampleMaker[Any]:
    """`samples`, or what replaces damaged ones in its batches, as the recipe says."""
    if recipe.data.damaged == "stop":
        return samples
    return SkippingMaker(samples, mixture, recipe.seed, recipe.data.max_damaged, recipe.resources.world_size)


class SkippingMaker(Generic[BatchT]):
    """Makes the batches of another `SampleMaker`, with other samples in the places of damaged ones. Thread-safe.

    Which sample takes a place is a function of seed, dataset and position: the first good one in a fixed sequence of
    draws. So neither threads nor ranks nor restarts change it. Rows that were found damaged are remembered and not read
    again; their number is bounded by the share.
    """

    def __init__(
        self, samples: SampleMaker[BatchT], mixture: Mixture, seed: int, max_share: float, world_size: int = 1
    ) -> None:
        """`max_share`: `data.max_damaged`."""
        self._samples, self._mixture, self._seed = samples, mixture, seed
        self._max_share, self._world_size = max_share, world_size
        self._lock = threading.Lock()
        self._damaged: set[tuple[int, int]] = set()  # dataset, row
        self._drawn: Counter[tuple[int, bool]] = Counter()  # (dataset, in training) -> samples so far
        self._replaced: Counter[tuple[int, bool]] = Counter()
        self._held_out: dict[int, RowSet] = {}

    def text_lengths(self, datasets: np.ndarray, rows: np.ndarray, num_vision: int) -> np.ndarray:
        """(n,) characters of the texts of the samples of the order, damaged or not; each argument (n,) int64."""
        return self._samples.text_lengths(datasets, rows, num_vision)

    def token_counts(self, datasets: np.ndarray, rows: np.ndarray, num_vision: int) -> TokenCounts:
        """Tokens of the samples of the order, damaged or not; each argument (n,) int64."""
        return self._samples.token_counts(datasets, rows, num_vision)

    def batch(
        self,
        positions: np.ndarray,
        datasets: np.ndarray,
        rows: np.ndarray,
        augment: bool,
        allocate: Allocate = page_aligned,
    ) -> BatchT:
        """A batch of the samples (datasets[i], rows[i]) at positions[i], each (B,) int64, in memory of `allocate`.

        Raises:
            DataError: more samples are damaged than the recipe allows, or what is wrong is no damage of a sample.
        """
        rows, memory = rows.copy(), _SameMemory(allocate)
        replaced: dict[int, Skipped] = {}
        places = zip(positions.tolist(), datasets.tolist(), strict=True)
        draws = [self._draws(position, dataset, augment) for position, dataset in places]
        found: Sequence[tuple[int, DamagedDataError | None]] = [(i, None) for i in range(len(rows))]
        missed = False
        while True:
            for i, error in found:
                dataset = int(datasets[i])
                if error is not None or (dataset, int(rows[i])) in self._damaged:
                    replaced.setdefault(i, self._note(dataset, int(rows[i]), error))
                    rows[i] = self._next_good(dataset, draws[i], replaced[i])
            try:
                batch = self._samples.batch(positions, datasets, rows, augment, memory.allocate)
            except DamagedDataError:
                memory.rewind()
                found = self._damaged_among(positions, datasets, rows, augment)
                if not found and missed:
                    raise  # twice damaged in the batch and not alone
                missed = not found
                continue
            self._count(datasets, replaced, augment)
            return replace(batch, skipped=tuple(replaced[i] for i in sorted(replaced))) if replaced else batch

    def _damaged_among(
        self, positions: np.ndarray, datasets: np.ndarray, rows: np.ndarray, augment: bool
    ) -> list[tuple[int, DamagedDataError]]:
        """Places of the batch whose samples are damaged, found by making each alone."""
        found = []
        for i in range(len(rows)):
            one = slice(i, i + 1)
            try:
                self._samples.batch(positions[one], datasets[one], rows[one], augment)
            except DamagedDataError as error:
                with self._lock:
                    self._damaged.add((int(datasets[i]), int(rows[i])))
                found.append((i, error))
        return found

    def _draws(self, position: int, dataset: int, augment: bool) -> _Draws:
        fingerprint = self._mixture.datasets[dataset].fingerprint
        return _Draws(self._candidates(dataset, augment), (self._seed, "replacement", fingerprint, position))

    def _next_good(self, dataset: int, draws: _Draws, replaced: Skipped) -> int:
        """The next row of the draws that is not known to be damaged."""
        while (row := draws.next()) is not None:
            if (dataset, row) not in self._damaged:
                return row
        raise DataError(
            f"{replaced.shard}: {replaced.key} is damaged, and so are {MAX_DRAWS} samples drawn in its place.", _REMEDY
        )

    def _candidates(self, dataset: int, augment: bool) -> RowSet:
        """The rows that may take a place: those of the training, or in a validation all that are held out."""
        if augment or self._mixture.config.train_split == ALL_SPLITS:
            return self._mixture.train_rows[dataset]
        if dataset not in self._held_out:
            opened = self._mixture.datasets[dataset]
            self._held_out[dataset] = opened.rows.usable("val", chunk_length(self._mixture.config, opened.kind))
        return self._held_out[dataset]

    def _note(self, dataset: int, row: int, error: DamagedDataError | None) -> Skipped:
        opened = self._mixture.datasets[dataset]
        shard = opened.shard_names[opened.rows.shard_of(row)[0]]
        path, key = opened.root / SHARDS_NAME / shard, opened.rows.text("key", row)
        return Skipped(str(path), key, None if error is None else error.message)

    def _count(self, datasets: np.ndarray, replaced: dict[int, Skipped], augment: bool) -> None:
        """Raise DataError if the share of replaced samples is too large."""
        with self._lock:
            self._drawn.update((int(dataset), augment) for dataset in datasets)
            self._replaced.update((int(datasets[i]), augment) for i in replaced)
            for i in replaced:
                dataset = int(datasets[i])
                drawn, bad = self._drawn[dataset, augment], self._replaced[dataset, augment]
                of_an_epoch = max(1.0, len(self._candidates(dataset, augment)) / self._world_size)
                if bad > max(1.0, self._max_share * of_an_epoch) * math.ceil(drawn / of_an_epoch):
                    reason = replaced[i].reason or f"{replaced[i].key} of {replaced[i].shard} is damaged."
                    raise DataError(
                        f"{self._mixture.datasets[dataset].root}: {bad} of {drawn} samples that this rank drew are "
                        f"damaged, more than data.max_damaged={self._max_share:g} allows. The last one: {reason}",
                        _REMEDY,
                    )


class _Draws:
    """The rows that may take the place of a sample, in turn. Draws are made when the first is needed."""

    def __init__(self, candidates: RowSet, purpose: tuple[str | int, ...]) -> None:
        self._candidates, self._purpose, self._taken = candidates, purpose, 0

    def next(self) -> int | None:
        """The next row; None after MAX_DRAWS, or if there are no candidates."""
        if self._taken == MAX_DRAWS or not len(self._candidates):
            return None
        draw = int(raw(MAX_DRAWS, *self._purpose)[self._taken])
        self._taken += 1
        return int(self._candidates[draw % len(self._candidates)])


class _SameMemory:
    """Gives a batch that is made again the memory of the first attempt, so that it fits where that one did."""

    def __init__(self, allocate: Allocate) -> None:
        self._allocate = allocate
        self._given: list[np.ndarray] = []
        self._next = 0

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array with any content, from the first attempt if it had one of this shape and type."""
        if self._next < len(self._given):
            array = self._given[self._next]
            self._next += 1
            if array.shape == tuple(shape) and array.dtype == np.dtype(dtype):
                return array
            return self._allocate(shape, dtype)
        array = self._allocate(shape, dtype)
        self._given.append(array)
        self._next += 1
        return array

    def rewind(self) -> None:
        """Begin again with the first array."""
        self._next = 0
