"""Dropout depends on seed and position, on nothing that came before."""

from __future__ import annotations

import torch

from pokevla.training.seeding import seed_dropout, seed_for


def test_draws_depend_on_seed_and_position_only() -> None:
    seed_dropout(7, 128)
    first = torch.rand(4)
    torch.rand(100)
    seed_dropout(7, 128)
    assert torch.equal(first, torch.rand(4))
    assert len({seed_for(seed, position) for seed in range(10) for position in range(0, 800, 8)}) == 1000


def test_seeds_fit_torch() -> None:
    assert all(0 <= seed_for(0, position) < 2**63 for position in range(1000))
