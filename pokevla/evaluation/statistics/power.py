"""How many trials a comparison needs, and which difference a number of trials can show.

`rate` is the success rate of one policy and `rate + difference` that of the other. Power is the probability that a
two-sided test of level `alpha` finds the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from scipy.stats import binom

from pokevla.evaluation.statistics.intervals import two_sided_z

MOST_TRIALS = 1_000_000
"""Where the search ends: nobody runs more."""
_STEP = 1e-4
"""Resolution of the smallest detectable difference: a hundredth of a point."""
_ROUNDING = 1e-9


def independent_agreement(rate: float, difference: float) -> float:
    """Share of trials with equal outcomes if the outcomes of two policies have nothing to do with each other. Policies
    on the same trials agree more often, because some trials are hard for both."""
    other = _other(rate, difference)
    return rate * other + (1 - rate) * (1 - other)


def agreement_range(rate: float, difference: float) -> tuple[float, float]:
    """Least and largest share of trials with equal outcomes that two such success rates allow."""
    other = _other(rate, difference)
    return (1 - min(rate + other, 2 - rate - other), 1 - abs(difference))


def paired_power(trials: int, rate: float, difference: float, agreement: float, alpha: float = 0.05) -> float:
    """Power of the exact McNemar test on `trials` trials of both policies.

    Exact: the sum over the number of discordant trials, binomial with 1 - `agreement`, of the power of the sign test
    given it.

    Args:
        agreement: share of trials on which both policies succeed or both fail.

    Raises:
        ValueError: no two policies have such rates, difference and agreement.
    """
    _check(rate, difference, alpha)
    low, high = agreement_range(rate, difference)
    if not low - _ROUNDING <= agreement <= high + _ROUNDING:
        raise ValueError(f"an agreement of {agreement:g} is outside [{low:g}, {high:g}]")
    disagreement = 1 - agreement
    if disagreement <= 0:
        return 0.0
    least, most = (int(edge) for edge in binom.interval(1 - 1e-10, trials, disagreement))
    discordant = np.arange(least, most + 1)
    # Largest minority that is still significant: twice the lower tail at one half is at most alpha.
    minority = binom.ppf(alpha / 2, discordant, 0.5)
    minority = np.where(binom.cdf(minority, discordant, 0.5) > alpha / 2, minority - 1, minority)
    wins = min(1.0, max(0.0, (disagreement + difference) / (2 * disagreement)))
    rejects = binom.cdf(minority, discordant, wins) + binom.sf(discordant - minority - 1, discordant, wins)
    rejects = np.where(minority < 0, 0.0, rejects)
    return float(np.sum(binom.pmf(discordant, trials, disagreement) * rejects))


def unpaired_power(trials: int, rate: float, difference: float, alpha: float = 0.05) -> float:
    """Power of a comparison of `trials` trials of one policy with as many other trials of the other.

    Normal approximation of the pooled z test (Fleiss, Levin and Paik 2003, Statistical Methods for Rates and
    Proportions, section 4.2), on whose statistic Barnard's test is built. Raises ValueError for impossible rates.
    """
    _check(rate, difference, alpha)
    other = _other(rate, difference)
    common = (rate + other) / 2
    spread = math.sqrt(rate * (1 - rate) + other * (1 - other))
    threshold = two_sided_z(alpha) * math.sqrt(2 * common * (1 - common))
    distance = abs(difference) * math.sqrt(trials)
    if spread == 0:  # one policy always fails, the other never
        return float(distance > threshold)
    normal = NormalDist()
    return normal.cdf((distance - threshold) / spread) + normal.cdf((-distance - threshold) / spread)


def paired_trials(rate: float, difference: float, agreement: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Trials of both policies from which on the exact McNemar test has at least `power`.

    Raises:
        ValueError: no two policies are like that, or MOST_TRIALS are not enough.
    """
    return _fewest(lambda trials: paired_power(trials, rate, difference, agreement, alpha), power)


def unpaired_trials(rate: float, difference: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Trials of each policy from which on two different sets of trials show the difference with at least `power`.
    Raises ValueError as `paired_trials`."""
    return _fewest(lambda trials: unpaired_power(trials, rate, difference, alpha), power)


def detectable_difference(
    trials: int, rate: float, agreement: float | None = None, *, paired: bool = True, alpha: float = 0.05,
    power: float = 0.8,
) -> float | None:  # fmt: skip
    """Smallest difference that `trials` trials show with at least `power`, to a hundredth of a point; None if they show
    none. The other policy is the one nearer to a success rate of one half, where differences are harder to see.

    `agreement` None: `independent_agreement`. An agreement that a difference rules out is replaced by the nearest
    possible one.
    """
    direction = -1.0 if rate > 0.5 else 1.0

    def reached(steps: int) -> bool:
        difference = direction * steps * _STEP
        if not paired:
            return unpaired_power(trials, rate, difference, alpha) >= power
        low, high = agreement_range(rate, difference)
        wanted = independent_agreement(rate, difference) if agreement is None else agreement
        return paired_power(trials, rate, difference, min(max(wanted, low), high), alpha) >= power

    low, high = 0, math.floor(max(rate, 1 - rate) / _STEP + 1e-9)
    if not reached(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high * _STEP


def _fewest(power_of: Callable[[int], float], power: float) -> int:
    """Smallest number from which on the power suffices. An exact power rises in small steps and falls a little between
    them, so the search ends with the last number that does not suffice."""
    if not 0 < power < 1:
        raise ValueError(f"a power of {power:g} is not in (0, 1)")
    low, high = 0, 1
    while power_of(high) < power:
        low, high = high, high * 2
        if high > MOST_TRIALS:
            raise ValueError(f"more than {MOST_TRIALS} trials are needed")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= power else (middle, high)
    margin = max(8, high // 50)
    failing = [trials for trials in range(high, high + margin) if power_of(trials) < power]
    return failing[-1] + 1 if failing else high


def _check(rate: float, difference: float, alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha:g} is not in (0, 1)")
    _other(rate, difference)
    if difference == 0:
        raise ValueError("a difference of 0 cannot be found")


def _other(rate: float, difference: float) -> float:
    """Success rate of the other policy, without the rounding errors that would put it outside [0, 1]."""
    other = rate + difference
    if not (0 <= rate <= 1 and -_ROUNDING <= other <= 1 + _ROUNDING):
        raise ValueError(f"success rates of {rate:g} and {other:g} are not both in [0, 1]")
    return min(1.0, max(0.0, other))
