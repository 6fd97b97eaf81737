"""Sharing the budget of a category among its sources and tasks."""

from __future__ import annotations

import numpy as np

_SMALLEST, _TINY = 1e-12, 1e-300
"""Smallest weight beside the largest one, so that their quotients stay finite and exact enough."""


def root_weights(sizes: np.ndarray, exponent: float, factors: np.ndarray) -> np.ndarray:
    """(n,) float64 shares of sets of `sizes` (n,) samples before bounds: `factors` times size to the power `exponent`.

    The square root is MolmoAct's choice within a group of its mixture (github.com/allenai/molmoact,
    olmo/data/dataset.py, root_size_mixture). An empty set has the weight 0.
    """
    return np.where(sizes > 0, factors * np.power(sizes.astype(np.float64), exponent), 0.0)


def share_budget(total: int, weights: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """(n,) int64 shares of `total`, in proportion to `weights`, each from `least` to `most`.

    What a share cannot take because it ends at `most` goes to the others in proportion (water-filling), so the sum is
    `total`, or that of `most` if this is smaller. If not even the sum of `least` fits, each gets the same number, up to
    its `least`. Fractions are rounded so that the sum holds, the largest up; of equal ones the first.

    Args:
        weights: (n,) float64, at least 0; where it is 0, no more than `least` is taken unless all others are full.
        least, most: (n,) int64, 0 <= least <= most.
    """
    least, most = least.astype(np.int64), most.astype(np.int64)
    if least.sum() > total:
        return _fill(total, np.ones(len(most)), np.zeros_like(least), least)
    shares = _fill(min(total, int(most.sum())), weights, least, most)
    rest = min(total, int(most.sum())) - int(shares.sum())  # all with a weight are full
    return shares if rest == 0 else _fill(rest + int(shares.sum()), np.ones(len(most)), shares, most)


def _fill(total: int, weights: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """As `share_budget` for `sum(least) <= total`; the sum is smaller if all with a weight are at `most`."""
    moving = weights > 0
    weights = np.where(moving, np.maximum(weights / max(weights.max(initial=0.0), _TINY), _SMALLEST), 0.0)
    reachable = int(np.where(moving, most, least).sum())
    if reachable <= total:
        return np.where(moving, most, least)
    level = _level(total, weights, least, most)
    exact = np.clip(level * weights, least, most)
    shares = np.floor(exact).astype(np.int64)
    order = np.lexsort((np.arange(len(shares)), -(exact - shares)))
    while (rest := total - int(shares.sum())) != 0:  # more than one pass only where floating point fell short
        step = 1 if rest > 0 else -1
        free = (shares < most) & moving if rest > 0 else (shares > least) & moving
        shares[[place for place in order if free[place]][: abs(rest)]] += step
    return shares


def _level(total: int, weights: np.ndarray, least: np.ndarray, most: np.ndarray) -> float:
    """The factor of the weights with which the bounded shares add up to `total`. Their sum grows with it."""
    positive = weights > 0
    low, high = 0.0, float((most[positive] / weights[positive]).max()) + 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if np.clip(middle * weights, least, most).sum() < total:
            low = middle
        else:
            high = middle
    return high


def paired_shares(share: int, yes: int, no: int, other: int) -> tuple[int, int, int]:
    """How many of `yes`, `no` and `other` samples make up `share`, with as many yes as no, up to one.

    Of each kind at most what there is; pairs and others in proportion to what there is of them.

    Args:
        share: at most 2 * min(yes, no) + other.
    """
    pairs = min(yes, no)
    usable = 2 * pairs + other
    if usable == 0:
        return 0, 0, 0
    both = min(2 * pairs, max(share - other, round(share * 2 * pairs / usable)))
    return (both + 1) // 2, both // 2, share - both
