"""The input shared by all action heads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class HeadCondition:
    """The hidden states that one head layer attends to. D is the width of the language model."""

    vision: Tensor  # (B, N, D), N = V * P
    queries: Tensor  # (B, Q, D)
    seg: Tensor  # (B, D)
