"""Casts that leave buffers alone: constants of the model that 16 bits would change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def cast_without_rounding_buffers(module: nn.Module, cast: Callable[[], nn.Module]) -> nn.Module:
    """Run `cast` (an `nn.Module._apply` of `module`), then undo what it rounded in the buffers of `module` and its
    submodules.

    SAM's Fourier matrix, the means of image normalisation and the rotary frequencies of many language models are
    buffers. Rounded to bf16, the matrix would move a position code by up to 0.07, and the frequencies the fastest
    rotary angle at position 600 by more than a radian. Buffers still follow to another device and to a wider type.
    """
    exact = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None and buffer.is_floating_point()
    ]
    result = cast()
    for owner, name, buffer in exact:
        now = owner._buffers[name]
        if now is not None and _rounds(buffer, now):
            owner._buffers[name] = buffer.to(now.device)
    return result


def _rounds(before: Tensor, after: Tensor) -> bool:
    return torch.finfo(after.dtype).bits < min(torch.finfo(before.dtype).bits, 32)


class ExactBuffers(nn.Module):
    """A module whose buffers, including those of its submodules, keep their precision in `bfloat16()`, `half()` and
    `to(dtype)`."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return cast_without_rounding_buffers(self, lambda: super(ExactBuffers, self)._apply(fn, recurse))
