"""The losses match their docstrings and do not depend on how a batch is split."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from pokevla.training.objectives import losses


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_action_loss_is_the_mean_absolute_difference() -> None:
    assert float(losses.action_l1(torch.zeros(2, 8, 7), torch.full((2, 8, 7), 0.25))) == 0.25


def test_focal_of_an_undecided_map_matches_the_formula_by_hand() -> None:
    # p = 0.5 everywhere, target 0: BCE ln 2, (1 - 0.5)^2, alpha_t 0.75
    value = losses.focal(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
    assert float(value) == pytest.approx(math.log(2) * 0.25 * 0.75)


def test_focal_is_torchvisions(generator: torch.Generator) -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits = torch.randn(3, 2, 8, 8, generator=generator)
    target = (torch.rand(3, 2, 8, 8, generator=generator) > 0.7).float()
    expected = sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2.0, reduction="mean")
    torch.testing.assert_close(losses.focal(logits, target), expected)


def test_kl_matches_the_definition_and_leaves_empty_maps_out(generator: torch.Generator) -> None:
    logits = torch.randn(2, 2, 4, 4, generator=generator)
    target = torch.zeros(2, 2, 4, 4)
    target[0, 0, 1, 1:3] = 1  # sample 0: view 0 visible, view 1 empty; sample 1: nothing visible
    p = logits[0, 0].sigmoid()
    p = p / p.sum()
    t = target[0, 0] / target[0, 0].sum()
    by_hand = (t[t > 0] * (t[t > 0].log() - p[t > 0].log())).sum()
    torch.testing.assert_close(losses.kl_divergence(logits, target), by_hand / 2)  # mean over two samples


def test_kl_of_a_flat_map_is_the_log_of_the_area_ratio() -> None:
    target = torch.zeros(1, 1, 16, 16)
    target[0, 0, :4, :4] = 1
    assert float(losses.kl_divergence(torch.zeros(1, 1, 16, 16), target)) == pytest.approx(math.log(256 / 16))


def test_kl_is_finite_for_extreme_logits() -> None:
    logits = torch.full((1, 1, 4, 4), -1e4, requires_grad=True)
    target = torch.zeros(1, 1, 4, 4)
    target[..., 0, 0] = 1
    loss = losses.kl_divergence(logits, target)
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_cosine_ignores_length_and_is_two_for_opposite_features(generator: torch.Generator) -> None:
    target = torch.randn(2, 2, 4, 8, generator=generator)
    assert float(losses.cosine_alignment(3 * target, target)) == pytest.approx(0.0, abs=1e-6)
    assert float(losses.cosine_alignment(-target, target)) == pytest.approx(2.0)


def test_next_token_weighs_samples_alike_however_long_their_answers(generator: torch.Generator) -> None:
    logits = torch.randn(5, 11, generator=generator)
    targets = torch.tensor([1, 2, 3, 4, 5])
    sample = torch.tensor([0, 0, 0, 0, 2])  # sample 1 has no trained token
    per_token = F.cross_entropy(logits, targets, reduction="none")
    expected = (per_token[:4].mean() + per_token[4]) / 3
    torch.testing.assert_close(losses.next_token(logits, targets, sample, 3), expected)


@pytest.mark.parametrize("name", ["focal", "kl_divergence"])
def test_a_batch_cut_in_two_has_the_mean_of_its_halves(name: str, generator: torch.Generator) -> None:
    loss = getattr(losses, name)
    logits = torch.randn(4, 2, 4, 4, generator=generator)
    target = (torch.rand(4, 2, 4, 4, generator=generator) > 0.8).float()
    target[1] = 0
    target[2, 0] = 0
    halves = (loss(logits[:2], target[:2]) + loss(logits[2:], target[2:])) / 2
    torch.testing.assert_close(loss(logits, target), halves)
