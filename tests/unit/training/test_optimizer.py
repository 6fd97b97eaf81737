"""Weight decay on matrices only; the rate is a pure function of the step, above zero from the first step to the
last."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pokevla.errors import RecipeError
from pokevla.parts import OPTIMIZERS
from pokevla.recipe.sections import OptimConfig
from pokevla.training.optimizer import applied_rate, apply_rate, build_optimizer, parameter_groups, rate_factor


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
    optimizer = build_optimizer(build(), OptimConfig(lr=0.5, weight_decay=0.1, betas=(0.8, 0.9)))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["lr"] == 0.5
    assert optimizer.defaults["betas"] == (0.8, 0.9)


def test_another_optimizer_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Muon orthogonalises the momentum of matrices; vectors keep AdamW."""

    class Muon(torch.optim.Optimizer):
        def __init__(self, groups: list[dict[str, Any]], optim: OptimConfig) -> None:
            super().__init__(groups, {"lr": optim.lr})
            matrices, vectors = groups
            self.matrices = torch.optim.Muon(matrices["params"], lr=optim.lr, weight_decay=optim.weight_decay)
            self.vectors = torch.optim.AdamW([vectors], lr=optim.lr, betas=optim.betas)

        def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            self.matrices.step()
            self.vectors.step()

    monkeypatch.setitem(OPTIMIZERS, "muon", Muon)
    model = build()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = build_optimizer(model, OptimConfig(name="muon", lr=0.5))
    model(torch.arange(6.0).reshape(2, 3)).square().sum().backward()
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert moved == [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(RecipeError, match="Did you mean muon"):
        build_optimizer(model, OptimConfig(name="muom", lr=0.5))


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
