"""Statistics as LeRobot stores them (huggingface/lerobot, src/lerobot/datasets/compute_stats.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
SAMPLE_EVERY = 10
"""Every tenth image enters the statistics of a camera."""


def number_statistics(rows: np.ndarray) -> dict[str, Any]:
    """Of every column of (T,D)."""
    values = rows.astype(np.float64)
    quantiles = np.quantile(values, QUANTILES, axis=0)
    return {
        "min": values.min(axis=0).tolist(),
        "max": values.max(axis=0).tolist(),
        "mean": values.mean(axis=0).tolist(),
        "std": values.std(axis=0).tolist(),
        "count": [len(values)],
        **{f"q{round(100 * q):02d}": row.tolist() for q, row in zip(QUANTILES, quantiles, strict=True)},
    }


class ImageMoments:
    """Statistics of images by colour, from a histogram of their values: in [0, 1], with shape (3,1,1)."""

    def __init__(self) -> None:
        self._histogram = np.zeros((3, 256), np.int64)
        self._count = 0

    @staticmethod
    def wants(row: int) -> bool:
        """Whether the image of this row is one of the sample."""
        return row % SAMPLE_EVERY == 0

    def add(self, pixels: np.ndarray) -> None:
        """Count an image (H,W,3) uint8."""
        for colour in range(3):
            self._histogram[colour] += np.bincount(pixels[..., colour].reshape(-1), minlength=256)
        self._count += 1

    def to_dict(self) -> dict[str, Any]:
        """The statistics."""
        values, sums = np.arange(256) / 255.0, self._histogram.sum(axis=1, keepdims=True)
        share = self._histogram / np.maximum(sums, 1)
        mean = (share * values).sum(axis=1)
        cumulative = np.cumsum(share, axis=1)
        found = {
            "min": [values[np.flatnonzero(row)[0]] for row in self._histogram],
            "max": [values[np.flatnonzero(row)[-1]] for row in self._histogram],
            "mean": mean,
            "std": np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1)),
            **{f"q{round(100 * q):02d}": [values[np.searchsorted(row, q)] for row in cumulative] for q in QUANTILES},
        }
        return {
            **{name: np.asarray(each).reshape(3, 1, 1).tolist() for name, each in found.items()},
            "count": [self._count],
        }
