"""Initialisation of models that are trained from scratch."""

from __future__ import annotations

import torch
from torch import nn

from pokevla.model.building import build_vlm
from pokevla.model.presets import preset
from pokevla.model.seeding import seed_dropout, seed_for, smooth_noise, standardise_outputs


def test_standardised_chain_has_mean_0_and_deviation_1():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 16), nn.Linear(16, 5)]
    inputs = torch.randn(200, 3, 6) + 7.0

    standardise_outputs(layers, inputs)

    outputs = layers[1](nn.functional.gelu(layers[0](inputs))).flatten(0, 1)
    assert torch.allclose(outputs.mean(0), torch.zeros(5), atol=1e-4)
    assert torch.allclose(outputs.std(0), torch.ones(5), atol=1e-4)


def test_projector_of_mini_starts_without_a_constant_part():
    vlm = build_vlm(preset("mini").vlm, seed=3)
    torch.manual_seed(0)
    pictures = smooth_noise(8, vlm.config.image_size)
    with torch.no_grad():
        states = vlm.encode_images(pictures[:, None])
    shared = states.mean((0, 1)).square().mean() / states.square().mean()
    assert shared < 0.1


def test_start_is_a_function_of_the_seed_alone():
    torch.manual_seed(1)
    first = build_vlm(preset("mini").vlm, seed=3).projector.fc3.bias
    torch.manual_seed(2)
    second = build_vlm(preset("mini").vlm, seed=3).projector.fc3.bias
    assert torch.equal(first, second)


def test_draws_depend_on_seed_and_position_only() -> None:
    seed_dropout(7, 128)
    first = torch.rand(4)
    torch.rand(100)
    seed_dropout(7, 128)
    assert torch.equal(first, torch.rand(4))
    assert len({seed_for(seed, position) for seed in range(10) for position in range(0, 800, 8)}) == 1000


def test_seeds_fit_torch() -> None:
    assert all(0 <= seed_for(0, position) < 2**63 for position in range(1000))
