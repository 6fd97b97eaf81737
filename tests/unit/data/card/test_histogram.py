from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pokevla.data.card.histogram import BINS, Histogram, LengthHistogram

NUMBERS = st.one_of(st.floats(-10, 10), st.just(np.nan), st.just(np.inf), st.just(-np.inf))


@given(arrays(np.float64, st.integers(0, 50), elements=NUMBERS))
def test_every_finite_value_is_counted_once(values: np.ndarray) -> None:
    histogram = Histogram(-2.0, 3.0)
    for part in np.array_split(values, 3):
        histogram.add(part)
    finite = values[np.isfinite(values)]
    assert histogram.counts.sum() + histogram.below + histogram.above == len(finite)
    assert (histogram.below, histogram.above) == ((finite < -2).sum(), (finite > 3).sum())


def test_both_ends_are_inside_and_a_constant_has_room() -> None:
    histogram = Histogram(0.0, 1.0)
    histogram.add(np.array([0.0, 1.0]))
    assert (histogram.counts[0], histogram.counts[BINS - 1]) == (1, 1)
    constant = Histogram(4.0, 4.0)
    constant.add(np.array([4.0]))
    assert constant.counts.sum() == 1


@given(st.lists(st.lists(st.integers(0, 100_000), max_size=10), min_size=1, max_size=5))
def test_lengths_of_any_size_are_counted_in_one_pass(parts: list[list[int]]) -> None:
    histogram = LengthHistogram()
    for part in parts:
        histogram.add(np.array(part, dtype=np.int64))
    everything = [length for part in parts for length in part]
    found = histogram.to_dict()
    assert sum(found["counts"]) == len(everything)
    if everything:
        assert (found["smallest"], found["largest"]) == (min(everything), max(everything))
        assert found["mean"] == pytest.approx(np.mean(everything))
        assert found["low"] <= min(everything) <= max(everything) < found["high"]
        assert len(found["counts"]) <= 2 * BINS
