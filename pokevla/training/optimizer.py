"""The optimizer with its parameter groups, and the learning rate as a pure function of the step.

So there is no scheduler state to save or restore.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from pokevla.parts import OPTIMIZERS, get_part
from pokevla.recipe.sections import OptimConfig
from pokevla.weights.parameter_groups import parameter_names_by_group

Schedule = Literal["cosine", "linear", "constant"]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters: weight decay applies to matrices, not to vectors (biases, norms, single
    embeddings)."""
    parameters = dict(model.named_parameters())
    groups = [[parameters[name] for name in names] for names in parameter_names_by_group(model)]
    return [{"params": group, "weight_decay": weight_decay if group[0].ndim >= 2 else 0.0} for group in groups]


def build_optimizer(model: nn.Module, optim: OptimConfig) -> Optimizer:
    """Build the optimizer of a recipe over the trainable parameters.

    Raises:
        RecipeError: `optim.name` is not an entry of `pokevla.parts.OPTIMIZERS`.
    """
    build = get_part("optim.name", optim.name, OPTIMIZERS)
    return build(parameter_groups(model, optim.weight_decay), optim)


def build_adamw(groups: list[dict[str, Any]], optim: OptimConfig) -> torch.optim.AdamW:
    """Build torch's AdamW. DeepSpeed's own is compiled on first use and is no faster on a CPU.

    `fused` makes one pass over each (flattened) parameter, on CPU and GPU.
    """
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, fused=True)


def rate_factor(steps: int, warmup_steps: int, schedule: Schedule, final_fraction: float) -> Callable[[int], float]:
    """Return f(step) for step in [0, steps): the learning rate of the step as a fraction of the peak rate.

    Warm-up is linear, from 1/warmup_steps at step 0 to 1 at step warmup_steps - 1. It never starts at zero, which would
    waste the first step, as DeepSpeed's WarmupCosineLR does. Cosine or linear decay reaches `final_fraction` at step
    `steps`, one past the last, so with `final_fraction` 0 the last step is not wasted either.
    """
    decay_steps = max(steps - warmup_steps, 0) + 1

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min((step - warmup_steps + 1) / decay_steps, 1.0)
        if schedule == "constant":
            return 1.0
        shape = 0.5 * (1 + math.cos(math.pi * progress)) if schedule == "cosine" else 1 - progress
        return final_fraction + (1 - final_fraction) * shape

    return factor


def apply_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def applied_rate(optimizer: Optimizer) -> float:
    """The learning rate that the next update will use."""
    return float(optimizer.param_groups[0]["lr"])
