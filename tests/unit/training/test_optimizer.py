"""Decay where it belongs; a rate that is a pure function of the step, above zero from the first step to the last."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pokevla.training.optimizer import applied_rate, apply_rate, build_adamw, parameter_groups, rate_factor


def build() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))
    model[2].weight.requires_grad_(False)
    return model


def test_matrices_decay_and_vectors_do_not_and_frozen_weights_are_in_no_group() -> None:
    model = build()
    decayed, plain = parameter_groups(model, 0.1)
    assert decayed["weight_decay"] == 0.1
    assert [p.shape for p in decayed["params"]] == [torch.Size([4, 3])]
    assert plain["weight_decay"] == 0.0
    assert len(plain["params"]) == 3


def test_settings_reach_adamw() -> None:
    optimizer = build_adamw(build(), lr=0.5, weight_decay=0.1, betas=(0.8, 0.9))
    assert optimizer.defaults["lr"] == 0.5
    assert optimizer.defaults["betas"] == (0.8, 0.9)


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
