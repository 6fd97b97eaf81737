"""Two policies on the same trials: exact McNemar test, and an interval of the difference of their success rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scipy.optimize import brentq
from scipy.stats import binomtest

from pokevla.evaluation.statistics.intervals import Z_95

_EDGE = 1e-12
"""How near to a difference of -1 or 1 the score is evaluated; it has no value there."""


@dataclass(frozen=True)
class PairCounts:
    """Trials that both policies finished, by outcome. Policies agree on `both` and `neither`."""

    both: int
    only_a: int
    only_b: int
    neither: int

    def __post_init__(self) -> None:
        """ValueError for a negative count."""
        if min(self.both, self.only_a, self.only_b, self.neither) < 0:
            raise ValueError(f"negative count in {self}")

    @property
    def pairs(self) -> int:
        """Trials in all."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def discordant(self) -> int:
        """Trials with different outcomes."""
        return self.only_a + self.only_b

    @property
    def successes_a(self) -> int:
        """Successes of policy A."""
        return self.both + self.only_a

    @property
    def successes_b(self) -> int:
        """Successes of policy B."""
        return self.both + self.only_b

    @property
    def difference(self) -> float | None:
        """Success rate of A minus that of B; None without trials."""
        return (self.only_a - self.only_b) / self.pairs if self.pairs else None

    def swapped(self) -> PairCounts:
        """The same trials with A and B exchanged."""
        return PairCounts(self.both, self.only_b, self.only_a, self.neither)


def count_pairs(pairs: Iterable[tuple[bool, bool]]) -> PairCounts:
    """Counts of (A succeeded, B succeeded), one entry for each trial."""
    counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for pair in pairs:
        counts[pair] += 1
    return PairCounts(*counts.values())


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p-value of the exact McNemar test (McNemar 1947, Psychometrika 12:153), in (0, 1].

    If the policies are equally good, a trial on which they differ is as likely a success of A as one of B. Trials on
    which they agree say nothing about that. Without discordant trials the p-value is 1.
    """
    return 1.0 if only_a + only_b == 0 else float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def tango_interval(only_a: int, only_b: int, pairs: int, z: float = Z_95) -> tuple[float, float]:
    """Score interval of the difference of two paired success rates, A minus B, in [-1, 1].

    Tango 1998, Statistics in Medicine 17:891; recommended by Fagerland, Lydersen and Laake 2014, Statistics in Medicine
    33:2850. Its coverage is close to the level for few trials too, and without discordant trials it does not
    collapse to a point. Without trials it is (-1, 1). Raises ValueError if there are more discordant trials than
    trials.
    """
    if min(only_a, only_b) < 0 or only_a + only_b > pairs:
        raise ValueError(f"{only_a} + {only_b} discordant trials of {pairs}")
    if pairs == 0:
        return (-1.0, 1.0)

    def excess(difference: float, sign: float) -> float:
        return _score(difference, only_a, only_b, pairs) - sign * z

    estimate = (only_a - only_b) / pairs
    low: Any = -1.0 if only_b == pairs else brentq(excess, -1 + _EDGE, estimate, args=(1.0,))
    high: Any = 1.0 if only_a == pairs else brentq(excess, estimate, 1 - _EDGE, args=(-1.0,))
    return (float(low), float(high))


def _score(difference: float, only_a: int, only_b: int, pairs: int) -> float:
    """Score statistic of the hypothesis that the difference is `difference`; it falls as `difference` grows."""
    distance = only_a - only_b - pairs * difference
    # Most likely P(only B) among those with this difference: the positive root of a quadratic (Tango 1998, eq. 24).
    linear = -only_a - only_b + (2 * pairs - only_a + only_b) * difference
    constant = -only_b * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear * linear - 8 * pairs * constant))
    probability_b = (root - linear) / (4 * pairs)
    variance = pairs * (2 * probability_b + difference * (1 - difference))
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)
