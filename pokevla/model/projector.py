"""Prismatic's fused-GELU projector from vision features to the language model's width."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class PrismaticProjector(nn.Module):
    """Linear C->4C, GELU, Linear 4C->D, GELU, Linear D->D (prismatic/util/nn_utils.py, FusedMLPProjector)."""

    def __init__(self, vision_width: int, hidden_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision_width, 4 * vision_width)
        self.fc2 = nn.Linear(4 * vision_width, hidden_size)
        self.fc3 = nn.Linear(hidden_size, hidden_size)

    def forward(self, features: Tensor) -> Tensor:
        """Map (..., C) to (..., D)."""
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(features)))))
