"""The rate is a pure function of the step, above zero from the first step to the last."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pokevla.training.schedule import applied_rate, apply_rate, rate_factor


@given(
    steps=st.integers(1, 500),
    share=st.floats(0, 1),
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
    final=st.floats(0, 1),
)
def test_rate_is_positive_and_never_above_the_peak(steps: int, share: float, schedule, final: float) -> None:
    factor = rate_factor(steps, round(share * steps), schedule, final)
    values = [factor(step) for step in range(steps)]
    assert all(0 < value <= 1 for value in values)


def test_warmup_is_linear_and_the_first_step_is_not_wasted() -> None:
    factor = rate_factor(100, 4, "cosine", 0.0)
    assert [factor(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_cosine_and_linear_fall_to_the_final_share() -> None:
    for schedule in ("cosine", "linear"):
        factor = rate_factor(1000, 0, schedule, 0.1)
        values = [factor(step) for step in range(1000)]
        assert values == sorted(values, reverse=True)
        assert values[-1] == pytest.approx(0.1, abs=1e-2)
        assert factor(499) == pytest.approx(0.55, abs=1e-2)


def test_applied_rate_is_the_one_that_was_set() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], lr=1.0)
    apply_rate(optimizer, 0.125)
    assert applied_rate(optimizer) == 0.125
