from __future__ import annotations

import numpy as np
import pytest

from pokevla.embodiment.finite import LARGEST, bad_number, refuse_bad_rows
from pokevla.errors import DataError


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "column 1 is nan, not finite"),
        (-np.inf, "column 1 is -inf, not finite"),
        (6e299, r"column 1 is 6e\+299, above the limit of 1e\+06"),
        (-2 * LARGEST, "column 1 is -2e.06, above the limit"),
    ],
)
def test_the_first_bad_number_is_named_by_row_and_column(value: float, words: str) -> None:
    rows = np.zeros((5, 2))
    rows[3, 1] = value
    with pytest.raises(DataError, match=f"x: actions, row 3: {words}"):
        refuse_bad_rows(rows, "x: actions")


def test_numbers_up_to_the_limit_are_good() -> None:
    assert bad_number(np.array([[LARGEST, -LARGEST, 0.0, 1e-300]])) is None
    assert bad_number(np.zeros((0, 7))) is None
    assert bad_number(np.array([[2 * LARGEST]]), largest=np.inf) is None
    assert bad_number(np.array([[np.inf]]), largest=np.inf) == (0, "column 0 is inf, not finite")
