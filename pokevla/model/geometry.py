"""The projector that aligns vision hidden states with a geometry teacher (Spatial Forcing's AlignProjector)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class GeometryProjector(nn.Module):
    """LayerNorm, Linear D->T, GELU, Linear T->T; Xavier-uniform weights, zero biases (docs/model.md)."""

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
