"""Histograms that are filled piece by piece."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

BINS = 40


@dataclass
class Histogram:
    """Counts of values in `BINS` bins of equal width from `low` to `high`, and of those below and above."""

    low: float
    high: float
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    below: int = 0
    above: int = 0

    def __post_init__(self) -> None:
        if not self.high > self.low:  # of a constant
            room = max(abs(self.low) * 0.5, 0.5)
            self.low, self.high = self.low - room, self.low + room

    def add(self, values: np.ndarray) -> None:
        """Count finite values of any shape. `high` belongs to the last bin."""
        flat = np.asarray(values, dtype=np.float64).reshape(-1)
        flat = flat[np.isfinite(flat)]
        self.below += int((flat < self.low).sum())
        self.above += int((flat > self.high).sum())
        inside = flat[(flat >= self.low) & (flat <= self.high)]
        places = ((inside - self.low) / (self.high - self.low) * BINS).astype(np.int64)
        self.counts += np.bincount(np.minimum(places, BINS - 1), minlength=BINS)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "low": self.low, "high": self.high, "counts": self.counts.tolist(), "below": self.below,
            "above": self.above,
        }  # fmt: skip


class LengthHistogram:
    """Counts of whole numbers from 0 on, such as lengths, in bins that widen as larger ones come."""

    def __init__(self) -> None:
        self._counts = np.zeros(2 * BINS, dtype=np.int64)
        self._width = 1
        self._total, self._sum, self._smallest, self._largest = 0, 0, 0, 0

    def add(self, values: np.ndarray) -> None:
        """Count some numbers (n,)."""
        values = np.asarray(values, dtype=np.int64)
        if not len(values):
            return
        self._smallest = int(values.min()) if not self._total else min(self._smallest, int(values.min()))
        self._largest = max(self._largest, int(values.max()))
        self._total, self._sum = self._total + len(values), self._sum + int(values.sum())
        while self._largest // self._width >= len(self._counts):
            half = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.concatenate([half, np.zeros_like(half)])
            self._width *= 2
        self._counts += np.bincount(values // self._width, minlength=len(self._counts))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the histogram, and smallest, mean and largest number."""
        used = np.flatnonzero(self._counts) if self._total else np.zeros(1, dtype=np.int64)
        first, stop = int(used[0]), int(used[-1]) + 1
        return {
            "low": first * self._width, "high": stop * self._width, "counts": self._counts[first:stop].tolist(),
            "below": 0, "above": 0,
            "smallest": self._smallest, "mean": self._sum / max(1, self._total), "largest": self._largest,
        }  # fmt: skip
