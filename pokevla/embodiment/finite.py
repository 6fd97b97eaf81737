"""The rule for numbers from outside: finite, and at most a million.

A robot's metres, radians, newtons and commands stay far below. Above a million float32, which the model computes in,
no longer resolves a tenth, and one such value makes the mean and the standard deviation of its column useless.
"""

from __future__ import annotations

import numpy as np

from pokevla.errors import DataError

LARGEST = 1e6
"""Absolute value from which a number is absurd, in any unit (ours)."""


def bad_number(rows: np.ndarray, largest: float = LARGEST) -> tuple[int, str] | None:
    """(row, description) of the first number (T,D) that is not finite or above `largest`; None if all are good."""
    good = np.isfinite(rows) & (np.abs(rows) <= largest)
    if good.all():
        return None
    row, column = (int(place) for place in np.argwhere(~good)[0])
    value = rows[row, column]
    why = f"above the limit of {largest:g}" if np.isfinite(value) else "not finite"
    return row, f"column {column} is {value:.6g}, {why}"


def refuse_bad_rows(rows: np.ndarray, what: str, remedy: str | None = None, largest: float = LARGEST) -> None:
    """Raise DataError naming `what`, row and column for a number (T,D) that is not finite or above `largest`."""
    bad = bad_number(rows, largest)
    if bad is not None:
        raise DataError(f"{what}, row {bad[0]}: {bad[1]}.", remedy)
