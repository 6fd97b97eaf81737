"""Two policies on different trials: Barnard's exact test."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binom

_GRID = 256
_VALUES_AT_ONCE = 1_000_000
_TIE = 1e-10
"""Tables whose statistics differ by less are equally extreme; rounding must not decide that."""


def barnard(successes: tuple[int, int], trials: tuple[int, int]) -> float:
    """Two-sided p-value of Barnard's exact unconditional test (Barnard 1947, Biometrika 34:123), in [0, 1].

    The statistic is the pooled z, as in `scipy.stats.barnard_exact`. That function is not used for two reasons. It
    holds tables of (trials of A) x (trials of B), too many for 10,000 trials a side; here binomial tails stand for
    whole rows. And it compares rounded statistics, so that a table as extreme as the observed one can drop out of the
    sum, which makes the p-value too small (5 of 7 against 1 of 3: 0.325 instead of 0.369). Without trials on a side the
    p-value is 1. Raises ValueError if `successes` are not in [0, trials].
    """
    if not all(0 <= s <= n for s, n in zip(successes, trials, strict=True)):
        raise ValueError(f"{successes} successes of {trials} trials")
    if 0 in trials:
        return 1.0
    observed = abs(float(_pooled_z(np.array(successes[0]), np.array(successes[1]), trials)))
    if observed == 0:
        return 1.0
    rows = np.arange(trials[0] + 1)
    lowest = _first_below(rows, trials, observed - _TIE)  # successes of B under which A is better by as much
    highest = trials[1] - _first_below(trials[0] - rows, trials, observed - _TIE)  # over which B is

    def probability(rates: np.ndarray) -> np.ndarray:  # (R,) -> (R,)
        column = rates[:, None]
        tails = binom.cdf(lowest - 1, trials[1], column) + binom.sf(highest, trials[1], column)
        return np.sum(binom.pmf(rows, trials[0], column) * tails, axis=1)

    # Denser towards 0 and 1, where the probability changes fastest.
    grid = np.sin(np.linspace(0, np.pi / 2, _GRID + 2)) ** 2
    parts = np.array_split(grid, 1 + len(grid) * len(rows) // _VALUES_AT_ONCE)
    heights = np.concatenate([probability(part) for part in parts])
    best = float(heights.max())
    for peak in np.argsort(heights[1:-1])[-3:] + 1:
        bounds = (float(grid[peak - 1]), float(grid[peak + 1]))
        refined: Any = minimize_scalar(lambda rate: -probability(np.array([rate]))[0], bounds=bounds, method="bounded")
        best = max(best, -float(refined.fun))
    return min(1.0, best)


def _first_below(rows: np.ndarray, trials: tuple[int, int], limit: float) -> np.ndarray:
    """For successes of A (R,), the smallest number of successes of B whose statistic is below `limit` > 0: (R,)."""
    low, high = np.zeros_like(rows), np.full_like(rows, trials[1] + 1)  # the statistic falls as B succeeds more often
    while np.any(low < high):
        middle = (low + high) // 2
        below = _pooled_z(rows, np.minimum(middle, trials[1]), trials) < limit
        below |= middle > trials[1]
        searching = low < high
        high = np.where(searching & below, middle, high)
        low = np.where(searching & ~below, middle + 1, low)
    return low


def _pooled_z(a: np.ndarray, b: np.ndarray, trials: tuple[int, int]) -> np.ndarray:
    """Difference of rates over its standard deviation at the common rate; 0 if all trials have one outcome."""
    common = (a + b) / sum(trials)
    variance = common * (1 - common) * (1 / trials[0] + 1 / trials[1])
    difference = a / trials[0] - b / trials[1]
    return np.divide(difference, np.sqrt(variance), out=np.zeros_like(difference), where=variance > 0)
