"""Bootstrap intervals of weighted means of strata, whole groups drawn at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
SEED = 0


@dataclass(frozen=True)
class Stratum:
    """Values of one stratum, such as the questions of one source."""

    values: np.ndarray
    """(N,) float."""
    groups: Sequence[str]
    """N names: values of one name, such as the questions about one image, are drawn together."""
    weight: float = 1.0


def weighted_interval(strata: Sequence[Stratum], alpha: float = 0.05) -> tuple[float, float, float]:
    """Sum of weight * mean over the strata, and its percentile bootstrap interval of level 1 - `alpha`.

    Groups are drawn with replacement within each stratum (Davison and Hinkley 1997, Bootstrap Methods, 3.8), 2000
    times, from a fixed seed. With one group in each stratum the interval is the mean alone. ValueError without values.
    """
    if not strata or any(not len(stratum.values) for stratum in strata):
        raise ValueError("a stratum has no values")
    rng = np.random.default_rng(SEED)
    estimate, drawn = 0.0, np.zeros(RESAMPLES)
    for stratum in strata:
        _, places = np.unique(np.asarray(stratum.groups, dtype=str), return_inverse=True)
        sums, counts = np.bincount(places, weights=stratum.values), np.bincount(places)
        chosen = rng.integers(0, len(sums), (RESAMPLES, len(sums)))
        estimate += stratum.weight * float(np.mean(stratum.values))
        drawn += stratum.weight * sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    low, high = np.quantile(drawn, [alpha / 2, 1 - alpha / 2])
    return estimate, float(low), float(high)
