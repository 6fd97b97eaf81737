"""OpenVLA-OFT's L1 head: an MLP on the states of K * A action tokens, the A states of each step side by side.

Sources: arXiv 2502.19645, section IV; prismatic/models/action_heads.py of moojink/openvla-oft @213c5ff. The head itself
has no form of its own for training: with published weights it computes the same. Proprio is a token of the sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pokevla.errors import UsageError
from pokevla.model.heads.condition import HeadCondition
from pokevla.model.presets import ActionHeadConfig


class ResidualBlock(nn.Module):
    """x + ReLU(Linear(LN(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, states: Tensor) -> Tensor:
        """(B, K, W) -> (B, K, W)."""
        return states + self.ffn(states)


class OFTHead(nn.Module):
    """LN(A * D) -> Linear -> ReLU -> residual blocks -> LN -> Linear."""

    def __init__(self, config: ActionHeadConfig, hidden_size: int) -> None:
        """
        Raises:
            UsageError: the number of queries is not that of the chunk's numbers.
        """
        super().__init__()
        self.chunk_length = config.chunk_length
        needed = config.chunk_length * config.action_dim
        if config.num_queries != needed:
            raise UsageError(
                f"The head oft reads one query per number of the chunk, {config.chunk_length} x {config.action_dim} = "
                f"{needed}; num_queries is {config.num_queries}.",
                f"Set num_queries={needed}.",
            )
        joined = config.action_dim * hidden_size
        # Published: layer_norm1 and fc1 (stem), mlp_resnet_blocks, layer_norm2, fc2; all below `model.`.
        self.stem = nn.Sequential(nn.LayerNorm(joined), nn.Linear(joined, config.width), nn.ReLU())
        self.blocks = nn.ModuleList(ResidualBlock(config.width) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, config.action_dim)

    def forward(self, conditions: Sequence[HeadCondition], proprio: Tensor) -> Tensor:
        """Predict an action chunk.

        Args:
            conditions: one per block; only the last one's queries (B, K * A, D) are read.
            proprio: (B, 1, D), not read: it has been a token of the sequence.

        Returns:
            (B, K, A) actions in normalised units.
        """
        queries = conditions[-1].queries
        states = self.stem(queries.reshape(queries.shape[0], self.chunk_length, -1))
        for block in self.blocks:
            states = block(states)
        return self.output(self.norm(states))
