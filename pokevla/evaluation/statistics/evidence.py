"""Evidence against a hypothesis that may be read after every trial: e-processes of two policies on the same trials.

An e-process is the fortune of a gambler who starts with 1 and bets against a hypothesis at odds that are fair or worse
if it is true. By Ville's inequality (Ville 1939, Étude critique de la notion de collectif) the fortune then *ever*
reaches 1/alpha with a probability of at most alpha, however often one looks and whenever one stops. Overviews: Ramdas,
Grünwald, Vovk and Shafer 2023, Statistical Science 38:576; Waudby-Smith and Ramdas 2024, JRSS B 86:1.

All functions take counts so far: arrays of one shape, or numbers. Mixtures of bets with fixed weights are bets again,
and depend on counts only, not on the order of outcomes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, logsumexp

STAKES = np.geomspace(0.15, 0.9, 4)
"""Shares of the largest safe bet that are mixed in `log_evidence_below`. The best one follows from how often the
policies disagree, which is not known before. Ours, chosen by simulation (`benchmarks/sequential_test.py`)."""
_EDGE = 1e-9


def log_evidence_of_difference(only_a: np.ndarray | int, only_b: np.ndarray | int) -> np.ndarray:
    """Log of the e-process against "equally good": of the trials on which the policies differ, either wins half.

    The bets are mixed uniformly over all shares of A's wins (Robbins 1970, Annals of Mathematical Statistics 41:1397):
    with D discordant trials, W of them won by A, the fortune is 2^D B(W + 1, D - W + 1).
    """
    a, b = np.asarray(only_a, float), np.asarray(only_b, float)
    return (a + b) * np.log(2) + betaln(a + 1, b + 1)


def log_evidence_below(
    only_a: np.ndarray | int, only_b: np.ndarray | int, pairs: np.ndarray | int, difference: float
) -> np.ndarray:
    """Log of the e-process against "the success rate of A minus that of B is `difference` or more", with -1 <
    `difference` < 1.

    With x = 1, -1 or 0 for a trial that only A, only B, or both or neither solved, each bet multiplies the fortune by
    1 + s (difference - x), whose mean is at most 1 under the hypothesis (Waudby-Smith and Ramdas 2024, section 4). The
    stakes s are STAKES over (1 - difference), so that a factor is never negative.
    """
    a, b, n = (np.asarray(value, float)[..., None] for value in (only_a, only_b, pairs))
    stakes = STAKES / (1 - difference)
    logs = (
        a * np.log1p(stakes * (difference - 1))
        + b * np.log1p(stakes * (difference + 1))
        + (n - a - b) * np.log1p(stakes * difference)
    )
    return logsumexp(logs, axis=-1) - np.log(len(STAKES))


def difference_bounds(only_a: int, only_b: int, pairs: int, alpha: float) -> tuple[float, float]:
    """Bounds of the difference of success rates, A minus B, that hold after all trials at once (a confidence sequence).

    Over the whole evaluation, either bound is ever wrong with a probability of at most `alpha`. Each is the difference
    against which the evidence is 1/alpha; the evidence grows with the distance from the observed difference.
    """

    def high(wins: int, losses: int) -> float:
        def excess(difference: float) -> float:
            return float(log_evidence_below(wins, losses, pairs, difference)) + np.log(alpha)

        if excess(1 - _EDGE) < 0:
            return 1.0
        if excess(-1 + _EDGE) >= 0:
            return -1.0
        root: Any = brentq(excess, -1 + _EDGE, 1 - _EDGE)
        return float(root)

    return (-high(only_b, only_a), high(only_a, only_b))
