from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.data.tables.row_set import RowSet


@given(st.integers(0, 2**32), st.integers(1, 9000), st.sampled_from([0.0, 0.01, 0.5, 1.0]))
def test_places_and_counts_are_those_of_a_plain_list(seed: int, num_rows: int, share: float) -> None:
    mask = np.random.default_rng(seed).random(num_rows) < share
    halves = mask[: num_rows // 16 * 8], mask[num_rows // 16 * 8 :]
    rows, expected = RowSet.of(halves, num_rows), np.flatnonzero(mask)
    assert len(rows) == len(expected)
    assert np.array_equal(np.asarray(rows), expected)
    assert np.array_equal(rows[np.arange(len(expected))], expected)
    assert np.array_equal(rows.count_before(np.arange(num_rows + 1)), np.concatenate(([0], np.cumsum(mask))))


def test_a_place_outside_is_refused() -> None:
    rows = RowSet.of([np.array([True, False, True])], 3)
    assert int(rows[1]) == 2
    for place in (-1, 2):
        with pytest.raises(IndexError):
            rows[place]
