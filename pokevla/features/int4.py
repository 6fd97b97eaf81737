"""Four bits a value for tokens: groups of 64 with a minimum and a scale, two values in a byte.

The minimum is rounded down and the scale up to the next float16, so nothing is clipped and the error of a value is at
most half its scale. Asymmetric groups of 64 were the best 4-bit code for features whose direction alone matters. A
group of GPTQ's or llama.cpp's 4-bit weights has the same form (ggml `block_q4_1`, github.com/ggml-org/llama.cpp,
ggml/src/ggml-common.h), with other orders of the values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

GROUP = 64
"""Number of consecutive values of a token that share a minimum and a scale; the last group of a token may be
shorter."""
LEVELS = 15
"""Largest code: 0 is the minimum of the group, 15 the minimum and fifteen scales."""


def num_groups(width: int) -> int:
    """Number of groups of a token of `width` values."""
    return -(-width // GROUP)


def encode(values: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise tokens (..., W) float32, W even, all within float16's range.

    Returns:
        uint8 (..., W / 2), value 2 i in the low and value 2 i + 1 in the high four bits of byte i; and float16
        (..., groups, 2), scale and minimum of each group.
    """
    width = values.shape[-1]
    groups = num_groups(width)
    padding = values[..., -1:].expand(*values.shape[:-1], groups * GROUP - width)  # changes no minimum or maximum
    grouped = torch.cat([values, padding], dim=-1).unflatten(-1, (groups, GROUP))
    least, largest = grouped.aminmax(dim=-1)
    minimum = _toward(least.half(), least, down=True)
    needed = (largest - minimum.float()) / LEVELS
    scale = _toward(needed.half(), needed, down=False)
    divisor = torch.where(scale == 0, 1.0, scale.float())
    codes = ((grouped - minimum.float()[..., None]) / divisor[..., None]).round().clamp(0, LEVELS).to(torch.uint8)
    flat = codes.flatten(-2)[..., :width]
    return flat[..., 0::2] | flat[..., 1::2] << 4, torch.stack([scale, minimum], dim=-1)


def decode(packed: Tensor, scales: Tensor) -> Tensor:
    """The float32 tokens (..., W) of `encode`'s uint8 (..., W / 2) and float16 (..., groups, 2), on their device."""
    flat = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2)  # (..., W)
    width, groups = flat.shape[-1], scales.shape[-2]
    grouped = functional.pad(flat, (0, groups * GROUP - width)).unflatten(-1, (groups, GROUP)).float()
    scale, minimum = scales.float().unbind(-1)
    return torch.addcmul(minimum[..., None], grouped, scale[..., None]).flatten(-2)[..., :width]


def _toward(rounded: Tensor, exact: Tensor, *, down: bool) -> Tensor:
    """`rounded`, float16, or its neighbour where it lies on the wrong side of `exact`, float32."""
    wrong = rounded.float() > exact if down else rounded.float() < exact
    limit = torch.full_like(rounded, -torch.inf if down else torch.inf)
    return torch.where(wrong, torch.nextafter(rounded, limit), rounded)
