"""Holm's correction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.evaluation.statistics.corrections import holm


def test_example_worked_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_value_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        holm([0.5, 1.5])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_adjusted_values_keep_the_order_and_lie_between_raw_and_bonferroni(values: list[float]) -> None:
    adjusted = holm(values)
    ranks = sorted(range(len(values)), key=lambda index: values[index])
    assert [adjusted[index] for index in ranks] == sorted(adjusted)
    for raw, new in zip(values, adjusted, strict=True):
        assert raw <= new <= min(1.0, len(values) * raw) + 1e-12
    if values:
        smallest = min(range(len(values)), key=lambda index: values[index])
        assert adjusted[smallest] == pytest.approx(min(1.0, len(values) * values[smallest]))
