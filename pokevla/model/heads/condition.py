"""The input shared by all action heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class HeadCondition:
    """The hidden states that one head layer attends to. D is the width of the language model."""

    vision: Tensor  # (B, N, D), N = V * P
    queries: Tensor  # (B, Q, D)
    seg: Tensor | None  # (B, D); None for a sequence without <SEG>

    def to(self, dtype: torch.dtype) -> HeadCondition:
        """The same states in `dtype`; itself if they are in it."""
        if self.queries.dtype == dtype:
            return self
        seg = None if self.seg is None else self.seg.to(dtype)
        return HeadCondition(self.vision.to(dtype), self.queries.to(dtype), seg)
