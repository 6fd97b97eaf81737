"""The optimizer's parameter groups: their order is part of the checkpoint."""

from __future__ import annotations

from torch import nn


def parameter_names_by_group(model: nn.Module) -> list[list[str]]:
    """Names of the trainable parameters, group by group: matrices (decayed), then vectors (biases, norms, embeddings).

    Order within a group is that of `named_parameters`, hence the same on every rank. Empty groups are left out.
    """
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = [name for name, parameter in trainable if parameter.ndim >= 2]
    vectors = [name for name, parameter in trainable if parameter.ndim < 2]
    return [group for group in (matrices, vectors) if group]
