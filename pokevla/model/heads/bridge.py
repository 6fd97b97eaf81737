"""VLA-Adapter's action head: latents attend to themselves, to queries and proprio, and to vision, layer by layer.

Sources: arXiv 2509.09372 (bridge attention); prismatic/models/action_heads.py of OpenHelix-Team/VLA-Adapter @838a36d.
`BridgeQuirks` has one switch for each place where the published code does something that we correct: off in a head that
we train, on for published weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pokevla.errors import UsageError
from pokevla.model.heads.condition import HeadCondition
from pokevla.model.heads.settings import BridgeQuirks
from pokevla.model.presets import ActionHeadConfig

ROPE_BASE = 10_000.0
NOISE_STD = 0.02
SOURCES = ("latents", "queries", "vision")
SHARED = "shared"

Angles = tuple[Tensor, Tensor]
"""Cosines and sines (S, d) of the rotary positions 0 .. S-1."""


class KeyValue(nn.Module):
    """Key and value projections of one source (Pro), or of all three (original)."""

    def __init__(self, source_width: int, width: int, *, key_bias: bool) -> None:
        super().__init__()
        self.key = nn.Linear(source_width, width, bias=key_bias)
        self.value = nn.Linear(source_width, width)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, source width) -> keys and values, each (B, S, W)."""
        return self.key(source), self.value(source)


class BridgeBlock(nn.Module):
    """Attention to three sources, output projection, FFN of one Linear."""

    def __init__(self, config: ActionHeadConfig, hidden_size: int) -> None:
        super().__init__()
        width, self.num_heads = config.width, config.num_heads
        self.quirks = config.bridge.quirks
        self.query = nn.Linear(width, width)
        # Published names of the sources (they swap meaning): original h = queries + proprio is "task" and h_t = vision
        # "adapter"; Pro calls queries + proprio "adapter" and vision "task".
        pro = config.bridge.variant == "pro"
        widths = {"latents": width, "queries": hidden_size, "vision": hidden_size} if pro else {SHARED: width}
        # A key bias shared by all keys of a softmax cancels; rotated, or scaled for some of them, it does not.
        key_bias = pro or self.quirks.gate_scales_logits
        self.sources = nn.ModuleDict({name: KeyValue(wide, width, key_bias=key_bias) for name, wide in widths.items()})
        self.output = nn.Linear(width, width)
        self.gate = nn.Parameter(torch.zeros(1))
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())
        self.film = nn.Linear(width, 2 * width).requires_grad_(False) if pro and self.quirks.unused_film else None

    def forward(self, latents: Tensor, queries: Tensor, vision: Tensor, angles: dict[str, Angles]) -> Tensor:
        """latents (B, K, W) attend to themselves, queries (B, Q + 1, D) and vision (B, N, D) -> (B, K, W)."""
        query = self._rotated(self._split(self.query(latents)), angles.get("latents"))
        given = dict(zip(SOURCES, (latents, queries, vision), strict=True))
        keys, values = {}, {}
        for name, source in given.items():
            key, value = self.sources[SHARED if SHARED in self.sources else name](source)
            keys[name], values[name] = self._rotated(self._split(key), angles.get(name)), self._split(value)
        attended = self._attend(query, keys, values)
        batch, length, width = latents.shape
        update = self.output(attended.transpose(1, 2).reshape(batch, length, width))
        if self.quirks.no_residual:
            return self.ffn(update + latents)
        latents = latents + update
        return latents + self.ffn(latents)

    def _attend(self, query: Tensor, keys: dict[str, Tensor], values: dict[str, Tensor]) -> Tensor:
        """Weighted values (B, H, K, W/H) of the three sources."""
        gate = self.gate.tanh()
        if self.quirks.gate_scales_logits:
            # Scaling the keys scales their logits.
            scaled = {**keys, "vision": keys["vision"] * gate}
            return F.scaled_dot_product_attention(query, _joined(scaled, SOURCES), _joined(values, SOURCES))
        own = SOURCES[:2]
        without = F.scaled_dot_product_attention(query, _joined(keys, own), _joined(values, own))
        return without + gate * F.scaled_dot_product_attention(query, keys["vision"], values["vision"])

    def _split(self, states: Tensor) -> Tensor:
        """(B, S, W) -> (B, H, S, W/H)."""
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _rotated(self, states: Tensor, angles: Angles | None) -> Tensor:
        return states if angles is None else rotate(states, angles, adjacent=self.quirks.adjacent_rope_pairs)


def _joined(parts: dict[str, Tensor], names: Sequence[str]) -> Tensor:
    return torch.cat([parts[name] for name in names], dim=2)


class BridgeHead(nn.Module):
    """Maps conditions from the language model to a chunk of normalised actions."""

    def __init__(self, config: ActionHeadConfig, hidden_size: int) -> None:
        """
        Raises:
            UsageError: the width does not suit the variant or the number of heads.
        """
        super().__init__()
        _check(config, hidden_size)
        self.config = config
        self.quirks: BridgeQuirks = config.bridge.quirks
        width, joined = config.width, config.action_dim * config.width
        # Published: layer_norm1 and fc1 (stem), mlp_resnet_blocks, layer_norm2, fc2; all below `model.`.
        if self.quirks.zero_latents:
            self.stem = nn.Sequential(nn.LayerNorm(joined), nn.Linear(joined, width), nn.ReLU())
        else:
            self.latents = nn.Parameter(torch.empty(config.chunk_length, width).normal_(std=0.02))
        self.blocks = nn.ModuleList(BridgeBlock(config, hidden_size) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, config.action_dim)

    def forward(self, conditions: Sequence[HeadCondition], proprio: Tensor) -> Tensor:
        """Predict an action chunk.

        Args:
            conditions: one per block. VLA-Adapter's block i reads the language model's layer i (`per_layer`).
            proprio: (B, 1, D), the projected robot state.

        Returns:
            (B, K, A) actions in normalised units.
        """
        first = conditions[0]
        latents = self._start(proprio).expand(proprio.shape[0], -1, -1)
        angles = self._angles(first.queries.shape[1] + 1, first.vision.shape[1], proprio)
        read: tuple[HeadCondition, Tensor, Tensor] | None = None
        for block, condition in zip(self.blocks, conditions, strict=True):
            if read is None or read[0] is not condition:
                # One copy of the slice of the sequence, which each of the two Linears would make and keep for itself.
                read = condition, self._queries(condition, proprio), condition.vision.contiguous()
            latents = block(latents, read[1], read[2], angles)
        return self.output(self.norm(latents))

    def _queries(self, condition: HeadCondition, proprio: Tensor) -> Tensor:
        """Query states and, last, the robot's: (B, Q + 1, D)."""
        queries = torch.cat([condition.queries, proprio], dim=1)
        return queries.to(torch.bfloat16).to(queries.dtype) if self.quirks.bf16_queries else queries

    def _start(self, like: Tensor) -> Tensor:
        """The latents before the first block: (K, W)."""
        chunk, joined = self.config.chunk_length, self.config.action_dim * self.config.width
        latents = like.new_zeros(chunk, joined) if self.quirks.zero_latents else self.latents
        if self.quirks.latent_noise and self.training:
            latents = latents + NOISE_STD * torch.randn_like(latents)
        return self.stem(latents) if self.quirks.zero_latents else latents

    def _angles(self, num_queries: int, num_vision: int, like: Tensor) -> dict[str, Angles]:
        """Rotary angles of each source, whose positions count from 0; proprio follows the queries. Empty for the
        original variant."""
        if self.config.bridge.variant == "original":
            return {}
        longest = max(self.config.chunk_length, num_queries, num_vision)
        depth = self.config.width // self.config.num_heads
        dtype = like.dtype if self.quirks.rope_in_weight_dtype else torch.float32
        cosines, sines = (table.to(like.dtype) for table in rotary_angles(longest, depth, like.device, dtype))
        lengths = zip(SOURCES, (self.config.chunk_length, num_queries, num_vision), strict=True)
        return {name: (cosines[:length], sines[:length]) for name, length in lengths}


def rotary_angles(length: int, depth: int, device: torch.device, dtype: torch.dtype) -> Angles:
    """Cosines and sines (length, depth) in `dtype`: channels i and i + depth/2 have the frequency 10000^(-2i/depth)."""
    exponents = torch.arange(0, depth, 2, device=device, dtype=torch.float32) / depth
    frequencies = (1.0 / ROPE_BASE**exponents).to(dtype)
    turns = torch.arange(length, device=device, dtype=dtype)[:, None] * frequencies
    turns = torch.cat([turns, turns], dim=-1)
    return turns.cos(), turns.sin()


def rotate(states: Tensor, angles: Angles, *, adjacent: bool) -> Tensor:
    """Rotate states (B, H, S, d) by their positions, in pairs (i, i + d/2), or in adjacent pairs as a quirk."""
    cosines, sines = angles
    if adjacent:
        turned = torch.stack([-states[..., 1::2], states[..., ::2]], dim=-1).flatten(-2)
    else:
        low, high = states.chunk(2, dim=-1)
        turned = torch.cat([-high, low], dim=-1)
    return states * cosines + turned * sines


def _check(config: ActionHeadConfig, hidden_size: int) -> None:
    if config.bridge.variant == "original" and config.width != hidden_size:
        raise UsageError(
            f"The original bridge head projects latents and hidden states with the same weights: its width "
            f"{config.width} must be the language model's {hidden_size}.",
            "Use this width, or the variant pro.",
        )
    if config.width % config.num_heads or (config.width // config.num_heads) % 2:
        raise UsageError(
            f"The bridge head's width {config.width} must divide by twice its num_heads {config.num_heads}.",
            "Change one of the two.",
        )
