"""Barnard's test against exact enumeration with fractions, and against scipy."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import barnard_exact

from pokevla.evaluation.statistics.unpaired import barnard

Two = tuple[int, int]


def enumerated(successes: Two, trials: Two) -> float:
    """Largest probability, over the common success rate, of tables at least as extreme, compared without rounding."""
    observed = squared_z(*successes, trials)
    rates = np.linspace(0, 1, 2001)
    total = np.zeros_like(rates)
    for a in range(trials[0] + 1):
        for b in range(trials[1] + 1):
            if squared_z(a, b, trials) >= observed:
                ways = comb(trials[0], a) * comb(trials[1], b)
                total += ways * rates ** (a + b) * (1 - rates) ** (sum(trials) - a - b)
    return float(total.max())


def squared_z(a: int, b: int, trials: Two) -> Fraction:
    common = Fraction(a + b, sum(trials))
    variance = common * (1 - common) * (Fraction(1, trials[0]) + Fraction(1, trials[1]))
    difference = Fraction(a, trials[0]) - Fraction(b, trials[1])
    return Fraction(0) if variance == 0 else difference**2 / variance


@pytest.mark.parametrize(
    ("successes", "trials"),
    [((4, 4), (6, 5)), ((5, 1), (7, 3)), ((9, 3), (10, 10)), ((0, 3), (4, 4)), ((12, 20), (15, 30)), ((1, 1), (1, 2))],
)
def test_p_value_is_that_of_all_tables_at_least_as_extreme(successes: Two, trials: Two) -> None:
    assert barnard(successes, trials) == pytest.approx(enumerated(successes, trials), abs=2e-5)


@pytest.mark.parametrize(("successes", "trials"), [((7, 12), (20, 25)), ((43, 40), (50, 60)), ((88, 75), (97, 99))])
def test_p_value_equals_scipy_where_no_statistics_tie(successes: Two, trials: Two) -> None:
    table = [list(successes), [n - s for s, n in zip(successes, trials, strict=True)]]
    assert barnard(successes, trials) == pytest.approx(barnard_exact(table, n=128).pvalue, rel=1e-3)


def test_vaccine_trial_of_the_literature() -> None:
    """Chan 1998, as in scipy's documentation of barnard_exact: 7 of 15 against 12 of 15, two-sided p = 0.0681."""
    assert barnard((7, 12), (15, 15)) == pytest.approx(0.0681, abs=5e-4)


@settings(max_examples=25)
@given(st.data())
def test_exchanging_policies_or_outcomes_changes_nothing(data: st.DataObject) -> None:
    n, m = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    p = barnard((a, b), (n, m))
    assert 0 <= p <= 1
    assert p == pytest.approx(barnard((b, a), (m, n)), abs=1e-6)
    assert p == pytest.approx(barnard((n - a, m - b), (n, m)), abs=1e-6)


def test_ten_thousand_trials_a_side_are_no_problem() -> None:
    """Near the normal approximation, whose two-sided p-value is 5.6e-6 for z = 4.54."""
    assert barnard((9027, 8826), (10_030, 10_030)) == pytest.approx(5.6e-6, rel=0.1)


def test_no_trials_show_nothing() -> None:
    assert barnard((0, 5), (0, 5)) == 1.0
    assert barnard((5, 5), (5, 5)) == 1.0
    with pytest.raises(ValueError, match="of"):
        barnard((6, 0), (5, 5))
