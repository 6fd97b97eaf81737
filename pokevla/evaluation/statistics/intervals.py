"""Confidence intervals of a success rate, and of the difference of two independent ones."""

from __future__ import annotations

import math
from statistics import NormalDist

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


def two_sided_z(alpha: float) -> float:
    """Normal quantile of a two-sided interval or test of level `alpha`. ValueError unless `alpha` is in (0, 1)."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha} is not in (0, 1)")
    return NormalDist().inv_cdf(1 - alpha / 2)


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a success rate (Wilson 1927, JASA 22:209), both ends in [0, 1].

    Unlike the normal interval it is valid for few trials and for 0 or all successes. Without trials it is (0, 1).
    Raises ValueError if `successes` is not in [0, trials].
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    if trials == 0:
        return (0.0, 1.0)
    rate = successes / trials
    denominator = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / denominator
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / denominator
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return (low, high)


def newcombe_interval(successes: tuple[int, int], trials: tuple[int, int], z: float = Z_95) -> tuple[float, float]:
    """Interval of the difference of two independent success rates, the first minus the second, in [-1, 1].

    Newcombe 1998, Statistics in Medicine 17:873, method 10: it combines the Wilson intervals of the two rates.
    Without trials on a side, that rate may be anything. Raises ValueError if `successes` are not in [0, trials].
    """
    (low_a, high_a), (low_b, high_b) = (wilson_interval(s, n, z) for s, n in zip(successes, trials, strict=True))
    if 0 in trials:
        return (low_a - high_b, high_a - low_b)
    rate_a, rate_b = successes[0] / trials[0], successes[1] / trials[1]
    difference = rate_a - rate_b
    low = difference - math.hypot(rate_a - low_a, high_b - rate_b)
    high = difference + math.hypot(high_a - rate_a, rate_b - low_b)
    return (max(-1.0, low), min(1.0, high))
