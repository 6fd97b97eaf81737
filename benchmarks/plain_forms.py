"""The mathematics of our heads and models written plainly: the rivals of `model_step.py`.

`VLAAdapterHead` follows the description of bridge attention in arXiv 2509.09372: one softmax over latents, queries with
proprio, and vision, whose scores are scaled by a gate; one key and one value projection for all three; an FFN without
an outer residual. `OFTHead` is the MLP of arXiv 2502.19645, section IV. Neither is the published code.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from timm.layers.attention import Attention
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamAttention

from pokevla.model.heads.attention import KeyValueAttention
from pokevla.model.heads.condition import HeadCondition
from pokevla.model.sequence import SequenceLayout
from pokevla.model.vla import PokeVLA


def softmax_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, H, K, d), (B, H, S, d), (B, H, S, d) -> (B, H, K, d): two products with the scores between them."""
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    return scores.softmax(dim=-1) @ value


class VLAAdapterBlock(nn.Module):
    """One block of VLA-Adapter's head in its original form."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.gate = nn.Parameter(torch.zeros(1))
        self.norm, self.ffn = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, latents: Tensor, queries: Tensor, vision: Tensor) -> Tensor:
        """latents (B, K, W), queries with proprio (B, Q + 1, W), vision (B, N, W) -> (B, K, W)."""

        def split(states: Tensor) -> Tensor:
            return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        query, sources = split(self.query(latents)), (latents, queries, vision)
        keys, values = [split(self.key(s)) for s in sources], [split(self.value(s)) for s in sources]
        scores = [query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5 for key in keys]
        scores[2] = scores[2] * self.gate.tanh()
        attended = torch.cat(scores, dim=-1).softmax(dim=-1) @ torch.cat(values, dim=2)
        latents = self.output(attended.transpose(1, 2).flatten(2)) + latents
        return torch.relu(self.ffn(self.norm(latents)))


class VLAAdapterHead(nn.Module):
    """Stem on zero latents, blocks, LayerNorm and Linear."""

    def __init__(self, num_layers: int, width: int, num_heads: int, chunk_length: int, action_dim: int) -> None:
        super().__init__()
        self.start = torch.zeros(chunk_length, action_dim * width)
        joined = action_dim * width
        self.stem = nn.Sequential(nn.LayerNorm(joined), nn.Linear(joined, width), nn.ReLU())
        self.blocks = nn.ModuleList(VLAAdapterBlock(width, num_heads) for _ in range(num_layers))
        self.norm, self.readout = nn.LayerNorm(width), nn.Linear(width, action_dim)

    def forward(self, conditions: Sequence[HeadCondition], proprio: Tensor) -> Tensor:
        """One condition per block, proprio (B, 1, D) -> (B, K, A)."""
        latents = self.stem(self.start.expand(proprio.shape[0], -1, -1))
        for block, condition in zip(self.blocks, conditions, strict=True):
            latents = block(latents, torch.cat([condition.queries, proprio], dim=1), condition.vision)
        return self.readout(self.norm(latents))


class OFTBlock(nn.Module):
    """x + ReLU(Linear(LN(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """(B, K, W) -> (B, K, W)."""
        return states + torch.relu(self.linear(self.norm(states)))


class OFTHead(nn.Module):
    """The states of one step's A action tokens side by side, through an MLP with residual blocks."""

    def __init__(self, num_layers: int, width: int, hidden_size: int, chunk_length: int, action_dim: int) -> None:
        super().__init__()
        joined, self.chunk_length = action_dim * hidden_size, chunk_length
        self.stem = nn.Sequential(nn.LayerNorm(joined), nn.Linear(joined, width), nn.ReLU())
        self.blocks = nn.Sequential(*(OFTBlock(width) for _ in range(num_layers)))
        self.norm, self.readout = nn.LayerNorm(width), nn.Linear(width, action_dim)

    def forward(self, conditions: Sequence[HeadCondition], proprio: Tensor) -> Tensor:
        """Queries (B, K * A, D) of the last condition -> (B, K, A). Proprio is not read."""
        states = conditions[-1].queries.unflatten(1, (self.chunk_length, -1)).flatten(2)
        return self.readout(self.norm(self.blocks(self.stem(states))))


def plainly(module: nn.Module) -> nn.Module:
    """A copy that projects every source token of `poke` to keys and values, and writes each attention as two products
    with a softmax between them. The weights and the mathematics are the same."""
    plain = copy.deepcopy(module)
    for part in plain.modules():
        if isinstance(part, KeyValueAttention):
            part.forward = _projected(part)  # pyright: ignore[reportAttributeAccessIssue]
        elif isinstance(part, Attention):  # timm's
            part.fused_attn = False  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(plain, PokeVLA):
        language_model = plain.vlm.language_model
        language_model.set_attn_implementation("eager")
        plain.vlm.mask_of = _causal_scores  # pyright: ignore[reportAttributeAccessIssue]
        for decoder in (plain.coarse_mask_decoder, plain.fine_mask_decoder):
            for part in decoder.modules():
                if isinstance(part, SamAttention):
                    part.config._attn_implementation = "eager"
    return plain


def _projected(part: KeyValueAttention) -> object:
    def forward(query: Tensor, source: Tensor) -> Tensor:
        key, value = (
            states.unflatten(-1, (query.shape[1], -1)).transpose(1, 2)
            for states in nn.functional.linear(source, part.weight).chunk(2, dim=-1)
        )
        return softmax_attention(query, key, value)

    return forward


def _causal_scores(layout: SequenceLayout) -> Tensor:
    """(1, 1, L, L) float to add to the scores: minus infinity for later tokens."""
    length = layout.source.shape[1]
    return cast(Tensor, torch.full((length, length), -torch.inf)).triu(1)[None, None]
