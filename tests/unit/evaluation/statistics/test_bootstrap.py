"""Bootstrap intervals of weighted means."""

from __future__ import annotations

import numpy as np
import pytest

from pokevla.evaluation.statistics.bootstrap import Stratum, weighted_interval


def test_the_interval_is_the_normal_one_for_many_values() -> None:
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    mean, low, high = weighted_interval([Stratum(values, [str(n) for n in range(400)])])
    assert mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert (low, high) == (pytest.approx(mean - half, abs=0.01), pytest.approx(mean + half, abs=0.01))


def test_values_of_one_image_are_drawn_together() -> None:
    values = np.repeat(np.random.default_rng(0).integers(0, 2, 50), 8).astype(float)
    apart = weighted_interval([Stratum(values, [str(n) for n in range(400)])])
    together = weighted_interval([Stratum(values, [str(n // 8) for n in range(400)])])
    assert together[0] == apart[0]
    assert (together[2] - together[1]) / (apart[2] - apart[1]) == pytest.approx(8**0.5, rel=0.1)


def test_strata_are_weighted_and_drawn_apart() -> None:
    strata = [Stratum(np.ones(3), ["a", "b", "c"], 0.25), Stratum(np.zeros(9), list("abcdefghi"), 0.75)]
    assert weighted_interval(strata) == (0.25, 0.25, 0.25)
    with pytest.raises(ValueError, match="no values"):
        weighted_interval([Stratum(np.ones(0), [])])
