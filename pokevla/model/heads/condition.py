"""What an action head reads, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class HeadCondition:
    """What one head layer looks at, all of the language model's width D."""

    vision: Tensor  # (B, N, D), N = V * P
    queries: Tensor  # (B, Q, D)
    seg: Tensor  # (B, D)
