"""The action head: learned latents that attend to themselves, to queries and proprio, to vision, and to SEG.

Paper sec. V-D: four attention modules per layer, whose concatenated outputs update the latents; finally LayerNorm and
MLP. Not specified in the paper, our choice: pre-norm, FFN with expansion 1, learned latents, one Linear 4W->W as the
output projection of all four (docs/model.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pokevla.model.heads.attention import KeyValueAttention
from pokevla.model.heads.condition import HeadCondition
from pokevla.model.presets import ActionHeadConfig


class Attention(nn.Module):
    """Multi-head attention without output projection: the layer's fuse Linear projects all four outputs."""

    def __init__(self, width: int, source_width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key_value = KeyValueAttention(source_width, width)

    def forward(self, latents: Tensor, source: Tensor) -> Tensor:
        """latents (B, K, W) attend to source (B, S, source width) -> (B, K, W)."""
        batch, num_latents, width = latents.shape
        query = self.query(latents).view(batch, num_latents, self.num_heads, width // self.num_heads).transpose(1, 2)
        return self.key_value(query, source).transpose(1, 2).reshape(batch, num_latents, width)


class ActionHeadLayer(nn.Module):
    """LN -> four attentions -> concat -> Linear -> residual -> LN -> FFN -> residual."""

    def __init__(self, config: ActionHeadConfig, hidden_size: int) -> None:
        super().__init__()
        width = config.width
        self.norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, width, config.num_heads)
        self.query_attention = Attention(width, hidden_size, config.num_heads)
        self.vision_attention = Attention(width, hidden_size, config.num_heads)
        # Attention over ONE key has weight 1 for any query: it reduces to the value projection, and query and key
        # projections would never receive a gradient.
        self.seg_attention = nn.Linear(hidden_size, width, bias=False) if config.seg_injection else None
        num_branches = 4 if config.seg_injection else 3
        self.gate = nn.Parameter(torch.zeros(num_branches)) if config.gate else None
        self.fuse = nn.Linear(num_branches * width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, latents: Tensor, condition: HeadCondition, proprio: Tensor) -> Tensor:
        """latents (B, K, W), condition of this layer, proprio token (B, 1, D) -> (B, K, W)."""
        normed = self.norm(latents)
        branches = [
            self.self_attention(normed, normed),
            self.query_attention(normed, torch.cat([condition.queries, proprio], dim=1)),
            self.vision_attention(normed, condition.vision),
        ]
        if self.seg_attention is not None:
            branches.append(self.seg_attention(condition.seg)[:, None].expand_as(normed))
        if self.gate is not None:
            branches = [branch * gate for branch, gate in zip(branches, self.gate.tanh(), strict=True)]
        latents = latents + self.fuse(torch.cat(branches, dim=-1))
        return latents + self.ffn(self.ffn_norm(latents))


class ActionHead(nn.Module):
    """Maps conditions from the language model to a chunk of normalised actions."""

    def __init__(self, config: ActionHeadConfig, hidden_size: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(config.chunk_length, config.width).normal_(std=0.02))
        self.layers = nn.ModuleList(ActionHeadLayer(config, hidden_size) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, config.action_dim)
        )

    def forward(self, conditions: list[HeadCondition], proprio: Tensor) -> Tensor:
        """Predict an action chunk.

        Args:
            conditions: one per head layer (the same object for every layer with condition "last").
            proprio: (B, 1, D), the projected robot state.

        Returns:
            (B, K, A) actions in normalised units.
        """
        latents = self.latents.expand(proprio.shape[0], -1, -1)
        for layer, condition in zip(self.layers, conditions, strict=True):
            latents = layer(latents, condition, proprio)
        return self.mlp(self.norm(latents))
