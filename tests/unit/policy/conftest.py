"""A policy of size tiny with random weights, and observations for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import pokevla.model.presets as presets
from pokevla.data.statistics import compute_statistics
from pokevla.embodiment.libero import LIBERO
from pokevla.evaluation.running.messages import Query
from pokevla.model.building import build_vla
from pokevla.model.tokenizers.loading import load_tokenizer
from pokevla.policy.policy import Policy

INSTRUCTIONS = ["pick up the salad dressing and place it in the basket", "push the plate", "Turn on the stove"]


@pytest.fixture(scope="session")
def make_policy() -> Callable[..., Policy]:
    """Build a policy. `noise` is added to the head's weights; keyword arguments replace fields of the policy."""

    def make(size: str = "tiny", noise: float = 0.2, **fields: object) -> Policy:
        rng = np.random.default_rng(0)
        actions = rng.uniform(-1, 1, (50, 7))
        actions[:, 6] = np.where(actions[:, 6] > 0, 1, -1)
        model = build_vla(presets.preset(size), seed=1).eval()
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():  # larger than at the start of a training: make the actions differ
            for parameter in model.action_head.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * noise)
        values = {
            "model": model,
            "tokenizer": load_tokenizer(),
            "statistics": compute_statistics([actions], [rng.uniform(-1, 1, (50, 8))], LIBERO),
            "embodiment": LIBERO,
            "image_size": model.config.vlm.image_size,
            "crop_area": 0.9,
            "system_prompt": None,
        }
        return Policy(**{**values, **fields})  # pyright: ignore[reportArgumentType]

    return make


@pytest.fixture(scope="module")
def policy(make_policy: Callable[..., Policy]) -> Policy:
    return make_policy()


@pytest.fixture(scope="module")
def queries() -> list[Query]:
    rng = np.random.default_rng(3)
    return [
        Query(0, text, rng.uniform(-1, 1, 8).astype(np.float32), rng.integers(0, 255, (2, 32, 32, 3), np.uint8), None)
        for text in INSTRUCTIONS
    ]
