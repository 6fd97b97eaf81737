"""An optimizer: torch's NAdam."""

from __future__ import annotations

from typing import Any

import torch

from pokevla.parts import OPTIMIZERS
from pokevla.recipe.sections import OptimConfig


def build_nadam(groups: list[dict[str, Any]], optim: OptimConfig) -> torch.optim.NAdam:
    """NAdam over the parameter groups of a model."""
    return torch.optim.NAdam(groups, lr=optim.lr, betas=optim.betas, decoupled_weight_decay=True)


OPTIMIZERS["nadam"] = build_nadam
