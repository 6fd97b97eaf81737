"""McNemar's exact test and Tango's interval: published examples, and both from their definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from pokevla.evaluation.statistics.paired import PairCounts, count_pairs, mcnemar_exact, tango_interval

COUNTS = st.tuples(st.integers(0, 25), st.integers(0, 25), st.integers(0, 40))


def test_pairs_are_counted_by_both_outcomes() -> None:
    counts = count_pairs([(True, True), (True, False), (True, False), (False, True), (False, False)])
    assert counts == PairCounts(both=1, only_a=2, only_b=1, neither=1)
    assert (counts.pairs, counts.discordant, counts.successes_a, counts.successes_b) == (5, 3, 3, 2)
    assert counts.difference == pytest.approx(0.2)
    assert counts.swapped().difference == pytest.approx(-0.2)
    assert PairCounts(0, 0, 0, 0).difference is None
    with pytest.raises(ValueError, match="negative"):
        PairCounts(0, -1, 0, 0)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 3), (0, 6), (1, 7), (5, 11), (2, 12)])
def test_mcnemar_counts_all_outcomes_that_are_at_least_as_uneven(only_a: int, only_b: int) -> None:
    tosses = itertools.product([0, 1], repeat=only_a + only_b)
    uneven = sum(abs(2 * sum(toss) - len(toss)) >= abs(only_a - only_b) for toss in tosses)
    assert mcnemar_exact(only_a, only_b) == pytest.approx(uneven / 2 ** (only_a + only_b))


def test_mcnemar_of_a_published_example() -> None:
    """Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91, table 1: exact conditional p =
    0.0703."""
    assert mcnemar_exact(1, 7) == pytest.approx(0.0703, abs=5e-5)


def test_policies_that_never_differ_are_not_shown_to_differ() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    low, high = tango_interval(0, 0, 44)
    assert -0.1 < low < 0 < high < 0.1


def test_tango_interval_of_a_published_example() -> None:
    """Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850: -0.517 to -0.026."""
    assert tango_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize(("only_a", "only_b", "pairs"), [(1, 7, 21), (12, 3, 50), (4, 4, 9), (0, 2, 30), (40, 20, 160)])
def test_score_at_the_ends_of_tango_interval_is_the_quantile(only_a: int, only_b: int, pairs: int) -> None:
    for end in tango_interval(only_a, only_b, pairs):
        assert abs(score_by_likelihood(only_a, only_b, pairs, end)) == pytest.approx(1.959964, abs=2e-4)


def score_by_likelihood(only_a: int, only_b: int, pairs: int, difference: float) -> float:
    """(Observed minus assumed difference) over its standard deviation at the most likely P(only B), found
    numerically."""
    agree = pairs - only_a - only_b

    def unlikelihood(b: float) -> float:
        a, rest = b + difference, 1 - 2 * b - difference
        terms = [(only_a, a), (only_b, b), (agree, rest)]
        if any(p < -1e-12 or (p <= 0 < count) for count, p in terms):
            return math.inf
        return -sum(count * math.log(p) for count, p in terms if count)

    bounds = (max(0.0, -difference), (1 - difference) / 2)
    b = minimize_scalar(unlikelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    variance = pairs * (2 * b + difference - difference**2)
    return (only_a - only_b - pairs * difference) / math.sqrt(variance)


@given(COUNTS)
def test_exchanging_the_policies_changes_the_sign_only(counts: tuple[int, int, int]) -> None:
    a, b, agree = counts
    low, high = tango_interval(a, b, a + b + agree)
    mirrored = tango_interval(b, a, a + b + agree)
    assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]), abs=1e-9)
    assert mcnemar_exact(a, b) == pytest.approx(mcnemar_exact(b, a))


@given(COUNTS)
def test_tango_interval_contains_the_difference_and_widens_with_the_level(counts: tuple[int, int, int]) -> None:
    a, b, agree = counts
    pairs = a + b + agree
    low, high = tango_interval(a, b, pairs)
    wide_low, wide_high = tango_interval(a, b, pairs, z=2.6)
    assert -1 <= wide_low <= low <= high <= wide_high <= 1
    if pairs:
        assert low <= (a - b) / pairs <= high


@given(st.integers(0, 30), st.integers(0, 30))
def test_more_wins_of_the_better_policy_are_stronger_evidence(a: int, b: int) -> None:
    better, worse = max(a, b), min(a, b)
    assert mcnemar_exact(better + 1, worse) <= mcnemar_exact(better, worse) + 1e-12


def test_tango_interval_covers_the_true_difference_in_about_95_percent_of_samples() -> None:
    rng = np.random.default_rng(3)
    samples = rng.multinomial(60, [0.15, 0.05, 0.8], size=1500)
    covered = [low <= 0.1 <= high for low, high in (tango_interval(int(a), int(b), 60) for a, b, _ in samples)]
    assert 0.935 <= np.mean(covered) <= 0.97


def test_more_discordant_trials_than_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="discordant trials of 3"):
        tango_interval(2, 2, 3)
