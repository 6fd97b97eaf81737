"""The optimizer's parameter groups. Their order is part of the checkpoint format."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def parameter_names_by_group(model: nn.Module) -> list[list[str]]:
    """Names of the trainable parameters, group by group: matrices (decayed), then vectors (biases, norms, embeddings).

    Order within a group is that of `named_parameters`, hence the same on every rank. Empty groups are left out.
    """
    return split_by_dimensions(
        (name, parameter.ndim) for name, parameter in model.named_parameters() if parameter.requires_grad
    )


def split_by_dimensions(parameters: Iterable[tuple[str, int]]) -> list[list[str]]:
    """Split parameters, given as (name, number of dimensions), into the groups, keeping their order."""
    parameters = list(parameters)
    matrices = [name for name, dimensions in parameters if dimensions >= 2]
    vectors = [name for name, dimensions in parameters if dimensions < 2]
    return [group for group in (matrices, vectors) if group]
