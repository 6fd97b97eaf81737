"""A tiny model and a batch for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pokevla.model.building import build_vla
from pokevla.model.presets import PokeVLAConfig, preset
from pokevla.model.vla import PokeVLA

Inputs = dict[str, Tensor]


@pytest.fixture
def tiny_vla() -> PokeVLA:
    return build_vla(preset("tiny"), seed=0)


def _inputs(config: PokeVLAConfig, lengths: tuple[int, ...] = (5, 8, 3), seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    batch, width = len(lengths), max(lengths)
    grid, channels, size = config.segmentation.grid, config.segmentation.embed_dim, config.vlm.image_size
    return {
        "pixel_values": torch.rand(batch, 2, 3, size, size, generator=generator),
        "input_ids": torch.randint(0, 800, (batch, width), generator=generator),
        "attention_mask": torch.arange(width)[None] < torch.tensor(lengths)[:, None],
        "proprio": torch.rand(batch, 8, generator=generator) * 2 - 1,
        "sam_features": torch.randn(batch, 2, channels, grid, grid, generator=generator),
    }


@pytest.fixture
def make_inputs() -> Callable[..., Inputs]:
    return _inputs
