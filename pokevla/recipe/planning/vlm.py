"""Costs of PokeVLM's parts: vision towers, projector, language model, as `pokevla.model` computes them."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pokevla.recipe.planning.sizes import LanguageSize, TowerSize
from pokevla.recipe.planning.tape import FLOAT_BYTES, Activation, Tape

Mask = Literal["none", "values", "blocks"]
"""What the language model's attention is told beside its tokens: nothing (causal, padded on the right), a mask's values
(bidirectional), or the places of packed samples."""


def run_tower(tape: Tape, size: TowerSize, pixels: Activation) -> Activation:
    """A timm ViT up to its penultimate block: normalised pixels -> (P, width) patch features."""
    x = tape.convolution(pixels, size.patches, 3 * size.patch**2, size.width)
    tape.weights((size.patches + size.prefix_tokens) * size.width)  # positions, class and register tokens
    x = Activation(size.patches + size.prefix_tokens, size.width, x.grad)
    for _ in range(size.layers - 1):
        x = tape.block(partial(vit_block, tape, size), x)
    tape.unused(partial(_unused_end, size))
    return Activation(size.patches, size.width, x.grad)


def vit_block(tape: Tape, size: TowerSize, x: Activation) -> Activation:
    """LN -> attention -> residual -> LN -> MLP -> residual; DINOv2 scales both updates (LayerScale)."""
    joined = tape.linear("qkv", tape.layer_norm(x), 3 * size.width)
    update = tape.linear("proj", tape.attend([joined], x.rows, x.rows, size.width, size.heads), size.width)
    x = tape.add(x, tape.scale(update) if size.layer_scale else update)
    hidden = tape.gelu(tape.linear("fc1", tape.layer_norm(x), size.mlp_width))
    update = tape.linear("fc2", hidden, size.width)
    return tape.add(x, tape.scale(update) if size.layer_scale else update)


def _unused_end(size: TowerSize, tape: Tape) -> None:
    """The last block, the final norm, and SigLIP's pooling head (timm's AttentionPoolLatent)."""
    x = vit_block(tape, size, Activation(1, size.width))
    tape.layer_norm(x)
    if size.pools:
        tape.weights(size.width)  # the latent
        tape.linear("q", x, size.width)
        tape.linear("kv", x, 2 * size.width)
        tape.linear("proj", x, size.width)
        tape.layer_norm(x)
        tape.linear("fc2", tape.linear("fc1", x, size.mlp_width), size.width)


def run_projector(tape: Tape, features: Activation, hidden: int) -> Activation:
    """Prismatic's projector: Linear C->4C, GELU, Linear 4C->D, GELU, Linear D->D."""
    x = tape.gelu(tape.linear("fc1", features, 4 * features.width))
    return tape.linear("fc3", tape.gelu(tape.linear("fc2", x, hidden)), hidden)


def run_language_model(tape: Tape, size: LanguageSize, x: Activation, mask: Mask) -> Activation:
    """Qwen2 without its word head: embeddings (L, D) of one sample -> last hidden states."""
    tape.weights(size.vocabulary * size.width)  # tied to the word head; looking a word up is no product
    if x.grad or tape.mode != "frozen":
        tape.keep_bytes(2 * x.rows * size.head_width * tape.element)  # cosines and sines, for all layers
    for _ in range(size.layers):
        x = tape.block(partial(language_layer, tape, size, mask), x)
    return tape.rms_norm(x)


def language_layer(tape: Tape, size: LanguageSize, mask: Mask, x: Activation) -> Activation:
    """RMSNorm -> grouped attention with rotary positions -> residual -> RMSNorm -> gated MLP -> residual.

    With any mask, transformers repeats the grouped keys and values; SDPA keeps the values of one. Attention of packed
    samples runs for each by itself (`pokevla.model.packing`), and its results are joined in another tensor.
    """
    narrow = size.kv_heads * size.head_width
    normed = tape.rms_norm(x)
    query = _rotated(tape, tape.linear("q_proj", normed, size.width))
    key = _rotated(tape, tape.linear("k_proj", normed, narrow))
    value = tape.linear("v_proj", normed, narrow)
    if mask != "none":
        key, value = (Activation(x.rows, size.width, part.grad) for part in (key, value))
        if mask == "values" and key.grad:
            tape.keep_bytes(x.rows**2 * tape.element)
    attended = tape.attend([query, key, value], x.rows, x.rows, size.width, size.heads)
    if mask == "blocks":
        attended = Activation(x.rows, size.width, attended.grad)
    x = tape.add(x, tape.linear("o_proj", attended, size.width, bias=False))
    normed = tape.rms_norm(x)
    gate = tape.gelu(tape.linear("gate_proj", normed, size.mlp_width, bias=False))
    hidden = tape.multiply(gate, tape.linear("up_proj", normed, size.mlp_width, bias=False))
    return tape.add(x, tape.linear("down_proj", hidden, size.width, bias=False))


def _rotated(tape: Tape, x: Activation) -> Activation:
    if x.grad:
        tape.keep_bytes(0)  # the angles, which all layers share
    return Activation(x.rows, x.width, x.grad)


def run_next_token(tape: Tape, states: Activation, vocabulary: int, answer_tokens: int) -> None:
    """Word head on the trained positions, and cross-entropy in fp32. The head is the tied embedding: it trains with
    it, and never has LoRA."""
    picked = Activation(answer_tokens, states.width, states.grad)
    tape.weighted_product(picked, 2.0 * answer_tokens * states.width * vocabulary)
    if states.grad or tape.trains:
        logits = answer_tokens * vocabulary
        tape.keep_bytes(logits * FLOAT_BYTES)  # log-probabilities
        # Their gradient in fp32, and then in the precision of the logits.
        tape.transient = logits * (FLOAT_BYTES + (tape.element if tape.element < FLOAT_BYTES else 0))
