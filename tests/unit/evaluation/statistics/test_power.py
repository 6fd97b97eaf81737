"""Power and numbers of trials: published sample sizes, and simulated comparisons."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from pokevla.evaluation.statistics.paired import mcnemar_exact
from pokevla.evaluation.statistics.power import (
    agreement_range,
    detectable_difference,
    independent_agreement,
    paired_power,
    paired_trials,
    unpaired_power,
    unpaired_trials,
)
from pokevla.evaluation.statistics.unpaired import barnard


@pytest.mark.parametrize(
    ("rate", "difference", "trials"), [(0.90, 0.05, 435), (0.60, 0.10, 356), (0.85, -0.20, 73), (0.50, 0.25, 58)]
)
def test_unpaired_trials_are_those_of_power_prop_test_in_r(rate: float, difference: float, trials: int) -> None:
    """`power.prop.test(p1, p2, power = 0.8)` of R: 434.4, 355.5, 72.4 and 57.7, rounded up."""
    assert unpaired_trials(rate, difference) == trials


def test_paired_power_is_the_sum_over_all_outcomes() -> None:
    trials, a, b, agreement = 14, 0.40, 0.05, 0.55
    total = 0.0
    for wins, losses in itertools.product(range(trials + 1), repeat=2):
        if wins + losses <= trials and mcnemar_exact(wins, losses) <= 0.05:
            ways = comb(trials, wins) * comb(trials - wins, losses)
            total += ways * a**wins * b**losses * agreement ** (trials - wins - losses)
    assert paired_power(trials, 0.6, a - b, agreement) == pytest.approx(total, abs=1e-9)


def test_number_of_paired_trials_has_the_power_in_simulated_comparisons() -> None:
    rate, difference, agreement = 0.9, 0.05, 0.9
    trials = paired_trials(rate, difference, agreement)
    rng = np.random.default_rng(1)
    samples = rng.multinomial(trials, [0.075, 0.025, 0.9], size=4000)
    kinds, times = np.unique(samples, axis=0, return_counts=True)
    significant = [mcnemar_exact(int(a), int(b)) <= 0.05 for a, b, _ in kinds]
    found = np.average(significant, weights=times)
    assert found == pytest.approx(0.8, abs=0.02)


def test_unpaired_power_is_that_of_barnard() -> None:
    """Exactly: the sum over all outcomes that Barnard's test rejects. The formula is a normal approximation."""
    trials, rate, other = 25, 0.9, 0.5
    exact = sum(
        binom.pmf(a, trials, rate) * binom.pmf(b, trials, other)
        for a, b in itertools.product(range(trials + 1), repeat=2)
        if binom.pmf(a, trials, rate) * binom.pmf(b, trials, other) > 1e-4 and barnard((a, b), (trials,) * 2) <= 0.05
    )
    assert exact == pytest.approx(unpaired_power(trials, rate, other - rate), abs=0.05)


def test_pairing_saves_trials_where_policies_agree() -> None:
    needed = [paired_trials(0.9, 0.05, agreement) for agreement in (0.86, 0.90, 0.94)]
    assert needed == sorted(needed, reverse=True)
    assert needed[-1] < unpaired_trials(0.9, 0.05) / 2


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 0.95), st.floats(0.02, 0.4), st.integers(20, 400))
def test_power_is_a_probability_that_is_symmetric_and_grows_with_trials(rate: float, d: float, trials: int) -> None:
    difference = d if rate + d <= 1 else -min(d, rate)
    agreement = independent_agreement(rate, difference)
    power = paired_power(trials, rate, difference, agreement)
    assert 0 <= power <= 1 + 1e-9
    assert power == pytest.approx(paired_power(trials, rate + difference, -difference, agreement), abs=1e-9)
    assert paired_power(4 * trials, rate, difference, agreement) >= power - 1e-9
    assert unpaired_power(4 * trials, rate, difference) >= unpaired_power(trials, rate, difference) - 1e-9


@pytest.mark.parametrize("paired", [True, False])
def test_detectable_difference_is_the_one_its_trials_are_needed_for(paired: bool) -> None:
    found = detectable_difference(500, 0.9, 0.9, paired=paired)
    assert found is not None
    needed = paired_trials(0.9, -found, 0.9) if paired else unpaired_trials(0.9, -found)
    assert 480 <= needed <= 510
    assert detectable_difference(2, 0.9, 0.9, paired=paired) is None or not paired


@pytest.mark.parametrize("rate", [0.0, 0.07, 0.3, 0.5, 0.7, 0.96, 0.99, 1.0])
def test_every_rate_has_a_detectable_difference_that_shrinks_with_trials(rate: float) -> None:
    for paired in (True, False):
        found = [detectable_difference(trials, rate, paired=paired) for trials in (60, 600)]
        assert found[0] is not None
        assert found[1] is not None
        assert 0 < found[1] < found[0] <= 1


def test_rates_and_agreements_that_cannot_be_are_refused() -> None:
    assert agreement_range(0.9, 0.05) == pytest.approx((0.85, 0.95))
    with pytest.raises(ValueError, match=r"agreement of 0.99 is outside \[0.85, 0.95\]"):
        paired_power(100, 0.9, 0.05, 0.99)
    with pytest.raises(ValueError, match=r"0.98 and 1.03 are not both"):
        unpaired_trials(0.98, 0.05)
    with pytest.raises(ValueError, match="difference of 0"):
        paired_trials(0.9, 0.0, 0.9)
    with pytest.raises(ValueError, match="more than"):
        paired_trials(0.5, 1e-5, 0.5)
