"""Decay where it belongs, and nowhere else."""

from __future__ import annotations

import torch
from torch import nn

from pokevla.training.optimizer import build_adamw, parameter_groups


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
