"""The hash of frozen weights sees every change of a frozen weight, and none of a trained one."""

from __future__ import annotations

import torch
from torch import nn

from pokevla.weights.frozen_hash import frozen_hash


def build(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[0].weight.requires_grad_(False)
    return model


def test_trained_weights_do_not_count_and_frozen_ones_and_buffers_do() -> None:
    model = build()
    before = frozen_hash(model)
    with torch.no_grad():
        model[0].bias.add_(1)
    assert frozen_hash(model) == before
    with torch.no_grad():
        model[1].running_mean.add_(1)
    with_other_buffer = frozen_hash(model)
    with torch.no_grad():
        model[0].weight[0, 0] += 1e-6
    assert len({before, with_other_buffer, frozen_hash(model)}) == 3


def test_the_hash_is_a_function_of_the_weights() -> None:
    assert frozen_hash(build(1)) == frozen_hash(build(1))
    assert frozen_hash(build(1)) != frozen_hash(build(2))
