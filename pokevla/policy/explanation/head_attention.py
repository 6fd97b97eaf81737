"""Attention weights of the action head, computed anew from its weights.

The head's own attention kernels return no weights, and may never form keys (absorbed products). This is the plain
mathematics of `pokevla.model.heads.poke` in fp32, and depends on the names of its parameters only. A test compares the
actions that it ends with to those of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pokevla.model.heads.condition import HeadCondition

SOURCES = ("latents", "queries", "vision", "seg")
"""What a layer of PokeVLA's head looks at, in the order of its branches. `seg` may be absent."""


@dataclass(frozen=True)
class HeadAttention:
    """Attention weights of every layer (L), head (H) and latent, one per action of the chunk (K)."""

    latents: Tensor  # (B, L, H, K, K)
    queries: Tensor  # (B, L, H, K, Q + 1), the robot's state last
    vision: Tensor  # (B, L, H, K, N), tokens in the order of the sequence
    shares: Tensor
    """(B, L, K, S): how much each of S sources contributes to the update of a latent, as a share of the sum of their
    norms behind the output projection. The attention to SEG has one key and so the weight 1; its share tells more."""
    actions: Tensor  # (B, K, A) normalised


def poke_attention(head: Any, conditions: Sequence[HeadCondition], proprio: Tensor) -> HeadAttention:
    """Run PokeVLA's head (`pokevla.model.heads.poke.ActionHead`) on its own inputs and keep all weights."""
    latents = head.latents.float().expand(proprio.shape[0], -1, -1)
    rows: list[dict[str, Tensor]] = []
    for layer, condition in zip(head.layers, conditions, strict=True):
        normed = _norm(layer.norm, latents)
        condition = condition.to(torch.float32)
        queries = torch.cat([condition.queries, proprio.float()], dim=1)
        sources = {"latents": normed, "queries": queries, "vision": condition.vision}
        row, branches = {}, []
        for name, module in _attentions(layer).items():
            row[name], attended = _attend(module, normed, sources[name])
            branches.append(attended)
        if layer.seg_attention is not None and condition.seg is not None:
            branches.append(_linear(layer.seg_attention, condition.seg)[:, None].expand_as(normed))
        if layer.gate is not None:
            branches = [branch * gate for branch, gate in zip(branches, layer.gate.float().tanh(), strict=True)]
        parts = layer.fuse.weight.float().chunk(len(branches), dim=1)
        updates = torch.stack([branch @ part.T for branch, part in zip(branches, parts, strict=True)], dim=2)
        norms = updates.norm(dim=-1)  # (B, K, S)
        row["shares"] = norms / norms.sum(dim=-1, keepdim=True).clamp_min(1e-12)
        latents = latents + updates.sum(dim=2) + layer.fuse.bias.float()
        latents = latents + _mlp(layer.ffn, _norm(layer.ffn_norm, latents))
        rows.append(row)
    stacked = {name: torch.stack([row[name] for row in rows], dim=1) for name in rows[0]}
    return HeadAttention(**stacked, actions=_mlp(head.mlp, _norm(head.norm, latents)))


HeadReader = Callable[[Any, Sequence[HeadCondition], Tensor], HeadAttention]
HEAD_READERS: dict[str, HeadReader] = {"poke": poke_attention}
"""Kinds of action heads whose attention can be read. Others have attention of another structure, or none."""


def _attentions(layer: Any) -> dict[str, Any]:
    return {"latents": layer.self_attention, "queries": layer.query_attention, "vision": layer.vision_attention}


def _attend(module: Any, latents: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (B, H, K, S) and attended values (B, K, W) of latents (B, K, W) that look at source (B, S, D)."""
    batch, num_latents, width = latents.shape
    query = _heads(_linear(module.query, latents), module.num_heads)
    key_weight, value_weight = module.key_value.weight.float().chunk(2, dim=0)
    key, value = (_heads(source @ weight.T, module.num_heads) for weight in (key_weight, value_weight))
    weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)
    return weights, (weights @ value).transpose(1, 2).reshape(batch, num_latents, width)


def _heads(states: Tensor, num_heads: int) -> Tensor:
    """(B, S, W) -> (B, H, S, W / H)."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _linear(module: Any, states: Tensor) -> Tensor:
    return functional.linear(states, module.weight.float(), None if module.bias is None else module.bias.float())


def _norm(module: Any, states: Tensor) -> Tensor:
    return functional.layer_norm(
        states, module.normalized_shape, module.weight.float(), module.bias.float(), module.eps
    )


def _mlp(module: Any, states: Tensor) -> Tensor:
    """Linear, GELU, Linear."""
    return _linear(module[2], functional.gelu(_linear(module[0], states)))
