"""Figures as people read them."""

from __future__ import annotations

import pytest

from pokevla.telemetry.figures import duration, number, percent


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25 s"), (9.97, "10 s"), (12, "12 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (18_120, "5 h 02 min"),
     (273_600, "3 d 04 h"), (None, "-")],
)  # fmt: skip
def test_durations_are_read_at_a_glance(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_small_shares_keep_a_digit() -> None:
    assert [percent(share) for share in (0.034, 0.5, 1.0, None)] == ["3.4 %", "50 %", "100 %", "-"]


def test_numbers_have_four_digits_and_what_is_not_finite_is_named() -> None:
    assert [number(value) for value in (0.00012346, 1.0, 1234567, None)] == ["0.0001235", "1", "1234567", "not finite"]
