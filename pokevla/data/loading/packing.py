"""Which samples of a global batch go into which micro-batch and sequence, and by what their losses are divided.

A pure function of the global batch: its samples' lengths, the size of a micro-batch, and the recipe. So all ranks agree
on it without talking to each other, and the number of ranks changes nothing.

Packing deals the samples to sequences, the longest first, each to the sequence that is shortest so far (longest
processing time first: R. L. Graham, Bounds on multiprocessing timing anomalies, 1969). All sequences of a global batch
have nearly the same length, which keeps the ranks together and leaves next to no padding.
"""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch

from pokevla.data.batch import Packing, VLMBatch

KEPT_STEPS = 4
"""Plans of global batches kept in memory. Threads of a loader work on one or two of them."""


class TokenCounts(NamedTuple):
    """Tokens of samples, each (n,) int64."""

    sequence: np.ndarray
    """Tokens in the sequence, those of all images included."""
    trained: np.ndarray
    """Tokens with a loss."""


@dataclass(frozen=True)
class Share:
    """What one micro-batch gets of its global batch."""

    positions: np.ndarray
    """(n,) int64 places in the global sample order; n is the size of a micro-batch unless samples are packed."""
    rows: np.ndarray | None
    """(n,) int64, not decreasing from 0: the sequence of each sample in this micro-batch. None: not packed."""
    divisor: float
    """Samples, or tokens with a loss, of the global batch per micro-batch. The sum of losses is divided by it, so that
    the mean over micro-batches and ranks is the mean over the global batch."""


class GlobalBatches:
    """Divides global batches into micro-batches. Thread-safe."""

    def __init__(
        self,
        counts_at: Callable[[np.ndarray], TokenCounts],
        batch: int,
        micro: int,
        *,
        tokens: int | None,
        average: Literal["samples", "tokens"],
    ) -> None:
        """`counts_at` counts the tokens of the samples at positions (n,); `tokens` is the longest packed sequence, None
        for samples that are not packed; `average` as in the recipe's loss."""
        self._counts_at, self._batch, self._micro = counts_at, batch, micro
        self._tokens, self._average = tokens, average
        self._plans: OrderedDict[int, list[Share]] = OrderedDict()
        self._lock = threading.Lock()

    def share(self, first: int) -> Share:
        """The share of the micro-batch that begins at position `first`, a multiple of the size of a micro-batch.

        Positions that are not packed are those from `first` on.
        """
        step, offset = divmod(first, self._batch)
        with self._lock:  # one thread counts, the others need the same numbers
            if step not in self._plans:
                self._plans[step] = self._plan(np.arange(step * self._batch, (step + 1) * self._batch, dtype=np.int64))
                if len(self._plans) > KEPT_STEPS:
                    self._plans.popitem(last=False)
            return self._plans[step][offset // self._micro]

    def _plan(self, positions: np.ndarray) -> list[Share]:
        counts = self._counts_at(positions)
        number = self._batch // self._micro
        divisor = float(self._micro if self._average == "samples" else max(1, int(counts.trained.sum())) / number)
        if self._tokens is None:
            return [Share(part, None, divisor) for part in positions.reshape(number, -1)]
        shares = []
        for sequences in pack(counts.sequence, number, self._micro, self._tokens):
            rows = np.repeat(np.arange(len(sequences)), [len(each) for each in sequences])
            shares.append(Share(positions[np.concatenate(sequences)], rows, divisor))
        return shares


def pack(lengths: np.ndarray, micro_batches: int, micro: int, tokens: int) -> list[list[np.ndarray]]:
    """Deal samples to micro-batches of the same number of sequences, as few as have at most `tokens` tokens each.

    Args:
        lengths: (micro_batches * micro,) int64 tokens of each sample, at least 1.
        tokens: longest sequence; that of the longest sample if this is longer.

    Returns:
        for each micro-batch its sequences, each the numbers of its samples in rising order. No sequence is empty. The
        longest sequences are in the first micro-batch, so that those of one micro-batch are equally long.
    """
    limit = max(tokens, int(lengths.max()))
    rows = max(1, -(-int(lengths.sum()) // (limit * micro_batches)))
    while True:
        bins = deal(lengths, micro_batches * rows)
        totals = np.bincount(bins, weights=lengths, minlength=micro_batches * rows)
        if totals.max() <= limit or rows >= micro:  # with `micro` of them, each sample has a sequence of its own
            break
        rows += 1
    order = np.argsort(-totals, kind="stable")
    sequences = [np.flatnonzero(bins == each) for each in order]
    return [sequences[start : start + rows] for start in range(0, len(sequences), rows)]


def deal(lengths: np.ndarray, bins: int) -> np.ndarray:
    """(n,) int64 bin of each sample: the longest first, each into the bin that holds the fewest tokens so far.

    With lengths (n,) of at least 1 and n >= bins, no bin is empty.
    """
    chosen = np.empty(len(lengths), dtype=np.int64)
    loads = [(0, number) for number in range(bins)]
    for sample in np.argsort(-lengths, kind="stable").tolist():
        load, number = loads[0]
        chosen[sample] = number
        heapq.heapreplace(loads, (load + int(lengths[sample]), number))
    return chosen


def packed(batch: VLMBatch, rows: np.ndarray, num_vision: int) -> VLMBatch:
    """The batch with its samples in sequences.

    Args:
        rows: (B,) int64, not decreasing from 0 without gaps: the sequence of each sample.
        num_vision: vision tokens of an image.
    """
    lengths = batch.attention_mask.sum(dim=1).numpy()
    lengths = lengths + num_vision * (1 if batch.num_images is None else batch.num_images.numpy())
    before = np.cumsum(lengths) - lengths  # tokens of all samples before this one
    starts = before - before[np.searchsorted(rows, rows)]
    return replace(
        batch,
        packing=Packing(
            row=torch.from_numpy(rows.astype(np.int64)),
            start=torch.from_numpy(starts.astype(np.int64)),
            blocks=tuple(zip(rows.tolist(), starts.tolist(), (starts + lengths).tolist(), strict=True)),
        ),
    )
