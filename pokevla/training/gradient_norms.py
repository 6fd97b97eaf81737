"""How strongly each loss pulls at the shared model."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from pokevla.distributed.collectives import is_distributed
from pokevla.training.objectives import Objective


def loss_gradient_norms(objective: Objective, batch: object) -> dict[str, float]:
    """Norm of each weighted loss's gradient on the shared parameters, over one micro-batch of every rank.

    Called by all ranks. A forward pass of its own, outside the engine, and `torch.autograd.grad` instead of
    `backward`: no gradient is accumulated, no hook of DeepSpeed runs, so training goes on as if it had not happened
    (tested bit for bit). It costs a forward pass and a backward pass per loss.

    Returns:
        {"grad_norm/<loss>": norm}; nothing when the VLM is frozen, since then there is no shared parameter.
    """
    shared = objective.shared_parameters()
    if not shared:
        return {}
    weighted = objective.terms(batch).weighted  # pyright: ignore[reportArgumentType]
    norms: dict[str, float] = {}
    for index, (name, loss) in enumerate(weighted.items()):
        gradients = torch.autograd.grad(loss, shared, retain_graph=index + 1 < len(weighted), allow_unused=True)
        norms[f"grad_norm/{name}"] = _norm_of_mean([gradient for gradient in gradients if gradient is not None])
    return norms


def _norm_of_mean(gradients: list[Tensor]) -> float:
    """Norm of the gradient's mean over ranks. Which parameters a loss reaches is the same on all ranks."""
    if not gradients:
        return 0.0
    flat = torch.cat([gradient.float().flatten() for gradient in gradients])
    if is_distributed():
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
    return float(flat.norm())
