"""Intervals against scipy, published examples, and what must hold of any interval."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pokevla.evaluation.statistics.intervals import Z_95, newcombe_interval, two_sided_z, wilson_interval


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (0, 20), (1, 20), (8, 20), (20, 20), (137, 200), (1, 3)])
def test_wilson_interval_equals_scipy(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_interval_of_12_of_20_is_the_published_one() -> None:
    low, high = wilson_interval(12, 20)
    assert (round(low, 2), round(high, 2)) == (0.39, 0.78)


def test_wilson_interval_without_trials_knows_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_more_successes_than_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson_interval(3, 2)


@pytest.mark.parametrize(
    ("successes", "trials", "published"),
    [
        ((56, 48), (70, 80), (0.0524, 0.3339)),
        ((9, 3), (10, 10), (0.1705, 0.8090)),
        ((10, 0), (10, 20), (0.6791, 1.0000)),
        ((0, 0), (10, 20), (-0.1611, 0.2775)),
        ((5, 0), (56, 29), (-0.0381, 0.1926)),
    ],
)
def test_newcombe_interval_equals_method_10_of_its_paper(successes, trials, published) -> None:
    """Newcombe 1998, Statistics in Medicine 17:873, table II."""
    assert newcombe_interval(successes, trials) == pytest.approx(published, abs=5e-5)


def test_level_of_95_percent_is_the_usual_quantile() -> None:
    assert two_sided_z(0.05) == pytest.approx(Z_95, abs=1e-12)
    with pytest.raises(ValueError, match="alpha 1"):
        two_sided_z(1.0)


@st.composite
def samples(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int]]:
    trials = draw(st.tuples(st.integers(0, 60), st.integers(0, 60)))
    return (draw(st.integers(0, trials[0])), draw(st.integers(0, trials[1]))), trials


@given(samples())
def test_newcombe_interval_mirrors_when_the_policies_are_exchanged(sample) -> None:
    (a, b), (n, m) = sample
    low, high = newcombe_interval((a, b), (n, m))
    mirrored = newcombe_interval((b, a), (m, n))
    assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]), abs=1e-12)
    assert -1 <= low <= high <= 1
    if n and m:
        assert low <= a / n - b / m <= high


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_contains_the_rate_and_narrows_with_trials(sample: tuple[int, int]) -> None:
    successes, trials = sample
    low, high = wilson_interval(successes, trials)
    assert low <= successes / trials <= high
    wider = wilson_interval(successes, trials, z=3.0)
    assert wider[0] <= low
    assert high <= wider[1]
    four_times = wilson_interval(4 * successes, 4 * trials)
    assert four_times[1] - four_times[0] < high - low
