"""What can happen to the values of tensors between published files and ours. Each is exactly reversible, but one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = list[Tensor]


@dataclass(frozen=True)
class Transform:
    """A change of values with its inverse, both free of rounding."""

    forward: Callable[[Tensors, Sequence[tuple[int, ...]]], Tensors]
    """(published tensors, shapes of ours) -> our tensors. Also called on the meta device, to learn shapes."""
    backward: Callable[[Tensors, int], Tensors] | None
    """(our tensors, number of published ones) -> published tensors; None if it cannot be reversed."""


def _same(tensors: Tensors, _: object) -> Tensors:
    return tensors


def _transpose(tensors: Tensors, _: object) -> Tensors:
    return [tensor.transpose(-1, -2).contiguous() for tensor in tensors]


def _join(tensors: Tensors, _: object) -> Tensors:
    return [torch.cat(tensors)]


def _cut(tensors: Tensors, count: int) -> Tensors:
    """Equal pieces along the first dimension. Raises ValueError if they are not."""
    (tensor,) = tensors
    if tensor.shape[0] % count:
        raise ValueError(f"{tuple(tensor.shape)} cannot be cut into {count} equal pieces")
    return [piece.contiguous() for piece in tensor.chunk(count)]


def _resample_grid(tensors: Tensors, shapes: Sequence[tuple[int, ...]]) -> Tensors:
    """(1, g * g, C) -> (1, G * G, C): timm's resampling of position embeddings when a model is made for another image
    size (timm/layers/pos_embed.py, resample_abs_pos_embed: bicubic, antialias, in fp32)."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    (tensor,), (shape,) = tensors, shapes
    grid = round(shape[1] ** 0.5)
    if tensor.is_meta:
        return [tensor.new_empty((1, grid * grid, tensor.shape[-1]))]
    return [resample_abs_pos_embed(tensor, [grid, grid], num_prefix_tokens=0)]


TRANSFORMS: dict[str, Transform] = {
    "same": Transform(_same, _same),
    "transpose": Transform(_transpose, _transpose),
    "concatenate": Transform(_join, _cut),
    "split": Transform(lambda tensors, shapes: _cut(tensors, len(shapes)), _join),
    "resample_grid": Transform(_resample_grid, None),
}
"""By the name that a `Row` gives. `concatenate` joins published tensors of equal size along the first dimension;
`split` is its inverse. `resample_grid` is only for parts that a model is assembled from."""
