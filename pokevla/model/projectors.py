"""The two projectors of vision features: into the language model, and onto a geometry teacher."""

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


class GeometryProjector(nn.Module):
    """LayerNorm, Linear D->T, GELU, Linear T->T; Xavier-uniform weights, zero biases (Spatial Forcing's
    AlignProjector; docs/model.md)."""

    def __init__(self, hidden_size: int, target_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.fc1 = nn.Linear(hidden_size, target_dim)
        self.fc2 = nn.Linear(target_dim, target_dim)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, vision: Tensor) -> Tensor:
        """Map vision hidden states (..., D) to the teacher's width (..., T)."""
        return self.fc2(F.gelu(self.fc1(self.norm(vision))))
