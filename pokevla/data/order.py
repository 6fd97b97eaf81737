"""Which sample comes at which position: a pure function of (seed, dataset fingerprints, mixture weights, position).

World size, threads and restarts do not change it. Within a dataset each epoch is a permutation, shuffled in windows of
shards: the shards are permuted, and samples are shuffled within each group of `shuffle_window` consecutive shards, so
reads stay nearly sequential on a parallel file system. Across datasets, a low-discrepancy sequence makes draws follow
the weights exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pokevla.data.randomness import permutation, raw
from pokevla.errors import DataError

SHARE_BITS = 24
"""Mixture shares are multiples of 2**-24: positions up to 2**39 fit in 63 bits, and weights are exact to 6e-8."""
CACHED_WINDOWS = 8
"""Number of permutations kept in memory, per dataset. A loader reads one window of a dataset at a time."""


@dataclass(frozen=True)
class _Epoch:
    """Layout of one epoch of one dataset: its windows in reading order."""

    window_starts: np.ndarray
    """(W+1,) offset in the epoch at which each window starts."""
    shards: np.ndarray
    """All shards in reading order; a window is `shuffle_window` of them."""


class Order:
    """The order of samples of a mixture."""

    def __init__(
        self,
        seed: int,
        shard_sizes: Sequence[Sequence[int] | np.ndarray],
        weights: Sequence[float],
        shuffle_window: int,
        fingerprints: Sequence[str],
    ) -> None:
        """`shard_sizes[d]` is the number of usable samples in each shard of dataset d. Weights need not sum to 1.

        Raises DataError for an empty dataset, a non-positive weight, or lists of different lengths.
        """
        if not (len(shard_sizes) == len(weights) == len(fingerprints) > 0):
            raise DataError("a mixture needs as many weights and fingerprints as datasets, and at least one.")
        if any(sum(sizes) == 0 for sizes in shard_sizes) or min(weights) <= 0:
            raise DataError("every dataset of a mixture needs samples and a weight above 0.")
        self.seed = seed
        self.shuffle_window = shuffle_window
        self.fingerprints = tuple(fingerprints)
        self.sizes = [int(sum(sizes)) for sizes in shard_sizes]
        self._shard_sizes = [np.asarray(sizes, dtype=np.int64) for sizes in shard_sizes]
        self._shard_starts = [np.concatenate(([0], np.cumsum(sizes))) for sizes in self._shard_sizes]
        remaining = [sum(weights[d:]) for d in range(len(weights))]
        self._shares = [round(w / r * 2**SHARE_BITS) for w, r in zip(weights, remaining, strict=True)]
        phases = raw(len(weights), seed, "mixture", *fingerprints) >> np.uint64(64 - SHARE_BITS)
        self._phases = [int(phase) for phase in phases]
        self._epoch = lru_cache(maxsize=4 * len(weights))(self._make_epoch)
        self._window = lru_cache(maxsize=CACHED_WINDOWS * len(weights))(self._make_window)

    def samples_at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(dataset, index among its usable samples, epoch), each (n,) int64, for positions (n,) int64 >= 0."""
        positions = np.asarray(positions, dtype=np.int64)
        datasets, draws = self._draws(positions)
        indices, epochs = np.empty_like(draws), np.empty_like(draws)
        for dataset, size in enumerate(self.sizes):
            chosen = np.flatnonzero(datasets == dataset)
            epochs[chosen], places = np.divmod(draws[chosen], size)
            for epoch in np.unique(epochs[chosen]):
                of_epoch = epochs[chosen] == epoch
                indices[chosen[of_epoch]] = self._indices(dataset, int(epoch), places[of_epoch])
        return datasets, indices, epochs

    def _draws(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The dataset that each position draws from, and the index of that draw within the dataset.

        Dataset 0 takes its share of all positions, evenly spread (a Beatty sequence). Dataset 1 takes its share of the
        remaining positions, and so on. `count(q)` draws precede q, so the draw index needs no history.
        """
        datasets = np.full(positions.shape, len(self.sizes) - 1, dtype=np.int64)
        left = positions.copy()  # index among the positions that earlier datasets did not take
        draws = positions.copy()
        open_ = np.ones(positions.shape, dtype=bool)
        for dataset in range(len(self.sizes) - 1):
            share, phase = self._shares[dataset], self._phases[dataset]
            count = (left * share + phase) >> SHARE_BITS
            taken = open_ & ((((left + 1) * share + phase) >> SHARE_BITS) > count)
            datasets[taken], draws[taken] = dataset, count[taken]
            open_ &= ~taken
            left -= count
        draws[open_] = left[open_]
        return datasets, draws

    def _indices(self, dataset: int, epoch: int, places: np.ndarray) -> np.ndarray:
        """Sample indices at the offsets `places` (n,) of one epoch."""
        layout = self._epoch(dataset, epoch)
        windows = np.searchsorted(layout.window_starts, places, side="right") - 1
        out = np.empty_like(places)
        for window in np.unique(windows):
            inside = windows == window
            out[inside] = self._window(dataset, epoch, int(window))[places[inside] - layout.window_starts[window]]
        return out

    def _make_epoch(self, dataset: int, epoch: int) -> _Epoch:
        sizes = self._shard_sizes[dataset]
        shards = permutation(len(sizes), self.seed, "shards", self.fingerprints[dataset], epoch)
        lengths = np.add.reduceat(sizes[shards], np.arange(0, len(shards), self.shuffle_window))
        return _Epoch(np.concatenate(([0], np.cumsum(lengths))), shards)

    def _make_window(self, dataset: int, epoch: int, window: int) -> np.ndarray:
        starts = self._shard_starts[dataset]
        first = window * self.shuffle_window
        shards = self._epoch(dataset, epoch).shards[first : first + self.shuffle_window]
        members = np.concatenate([np.arange(int(starts[shard]), int(starts[shard + 1])) for shard in shards])
        mixed = permutation(len(members), self.seed, "window", self.fingerprints[dataset], epoch, window)
        return members[mixed]
