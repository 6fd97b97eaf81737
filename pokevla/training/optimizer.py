"""AdamW with weight decay where it belongs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pokevla.weights.parameter_groups import parameter_names_by_group


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters: matrices decay; vectors (biases, norms, single embeddings) do not."""
    parameters = dict(model.named_parameters())
    groups = [[parameters[name] for name in names] for names in parameter_names_by_group(model)]
    return [{"params": group, "weight_decay": weight_decay if group[0].ndim >= 2 else 0.0} for group in groups]


def build_adamw(model: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """torch's AdamW: DeepSpeed's own would be compiled on first use, and on a CPU is no faster.

    `fused` does one pass over each (flattened) parameter, on CPU and GPU alike.
    """
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, betas=betas, fused=True)
