"""An action head: one MLP on the mean of the action queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pokevla.model.heads.condition import HeadCondition
from pokevla.model.presets import ActionHeadConfig
from pokevla.parts import ACTION_HEADS


class MeanHead(nn.Module):
    """Reads the condition of the last layer only."""

    def __init__(self, config: ActionHeadConfig, hidden_size: int) -> None:
        super().__init__()
        self.shape = (config.chunk_length, config.action_dim)
        size = config.chunk_length * config.action_dim
        self.mlp = nn.Sequential(nn.Linear(2 * hidden_size, config.width), nn.GELU(), nn.Linear(config.width, size))

    def forward(self, conditions: list[HeadCondition], proprio: Tensor) -> Tensor:
        """Conditions and proprio (B, 1, D) -> normalised actions (B, K, A)."""
        read = torch.cat([conditions[-1].queries.mean(dim=1), proprio[:, 0]], dim=-1)  # (B, 2 D)
        return self.mlp(read).unflatten(-1, self.shape)


ACTION_HEADS["mean"] = MeanHead
