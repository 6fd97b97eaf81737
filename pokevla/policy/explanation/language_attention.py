"""Attention weights of the language model, computed anew from the queries and keys of its layers.

Fused kernels return no weights. A hook takes what each attention layer is given, and computes the rows of its weights
that are asked for: a few rows against all tokens, so the whole (L, L) square never exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from pokevla.errors import UsageError
from pokevla.model.presets import Attention
from pokevla.model.sequence import SequenceLayout, take_rows

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


def visible_keys(layout: SequenceLayout, rows: Tensor, attention: Attention) -> Tensor:
    """(B, R, L) bool: the tokens that each of `rows` (B, R) attends to."""
    length = layout.source.shape[1]
    if attention == "bidirectional":
        return layout.valid[:, None].expand(-1, rows.shape[1], -1)
    return torch.arange(length, device=rows.device) <= rows[..., None]


def attention_rows(layer: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor], rows: Tensor, visible: Tensor) -> Tensor:
    """Weights of one attention layer in fp32.

    Args:
        layer: an attention of transformers with rotary positions (Qwen2, Llama; Qwen3 with its norms of heads).
        hidden: (B, L, D), the layer's input, already normalised.
        rotary: cosines and sines (1 or B, L, head width).
        rows: (B, R), the positions whose weights are wanted.
        visible: (B, R, L) bool.

    Returns:
        (B, H, R, L); each row sums to 1.
    """
    query, key = (_heads(project(hidden), layer.head_dim) for project in (layer.q_proj, layer.k_proj))
    if hasattr(layer, "q_norm"):
        query, key = layer.q_norm(query), layer.k_norm(key)
    query, key = apply_rotary_pos_emb(query.transpose(1, 2), key.transpose(1, 2), *rotary)
    chosen = take_rows(query.transpose(1, 2).flatten(2), rows)  # (B, R, H * head width)
    query = _heads(chosen, layer.head_dim).transpose(1, 2).float()
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1).float()
    scores = query @ key.transpose(-1, -2) * layer.scaling
    return scores.masked_fill(~visible[:, None], -torch.inf).softmax(dim=-1)


@contextmanager
def recorded_rows(
    language_model: nn.Module, layout: SequenceLayout, attention: Attention, rows: Tensor, columns: slice
) -> Iterator[list[Tensor]]:
    """While the block runs, each forward pass of the language model adds the weights (B, H, R, len(columns)) of all its
    layers to the list, the first layer first.

    Raises:
        UsageError: the layers of this language model have no queries and keys that can be read.
    """
    layers = _attention_layers(language_model)
    visible = visible_keys(layout, rows, attention)
    recorded: list[Tensor] = []

    def read(layer: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        hidden = options["hidden_states"] if "hidden_states" in options else arguments[0]
        rotary = options["position_embeddings"] if "position_embeddings" in options else arguments[1]
        recorded.append(attention_rows(layer, hidden, rotary, rows, visible)[..., columns])

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(read, with_kwargs=True).remove)
        yield recorded


def _attention_layers(language_model: nn.Module) -> Sequence[nn.Module]:
    named = (*_PROJECTIONS, "head_dim", "scaling")
    layers = [module for module in language_model.modules() if all(hasattr(module, name) for name in named)]
    if not layers:
        raise UsageError(
            f"The attention of {type(language_model).__name__} cannot be read: it has no layers with "
            f"{', '.join(_PROJECTIONS)}.",
            "Only language models built like Qwen2 can be explained.",
        )
    return layers


def _heads(states: Tensor, head_width: int) -> Tensor:
    """(B, L, H * W) -> (B, L, H, W)."""
    return states.unflatten(-1, (-1, head_width))
