"""Estimates of `pokevla plan`: parameters, FLOPs per sample, memory per GPU. Formulas only, no files."""

from __future__ import annotations

from dataclasses import dataclass

from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import LIBERO
from pokevla.recipe.kinds import DataKind, data_kind_of, model_of
from pokevla.recipe.planning.precision import PRECISIONS
from pokevla.recipe.planning.sizes import Part, PresetSize, Stack, preset_size
from pokevla.recipe.schema import TrainRecipe

GIB = 1024**3
# Text tokens of an average sample. Pre-training: LLaVA-like questions and answers with their system block, ours.
# Post-training: the instruction in its chat frame, 45 to 70 tokens.
TEXT_TOKENS: dict[DataKind, int] = {"vlm": 256, "robot": 60}
ANSWER_TOKENS = 64
# CUDA context, cuBLAS workspaces, communication buckets, fragmentation. Ours.
OVERHEAD_GIB = 3.0


@dataclass(frozen=True)
class Parameters:
    """Number of parameters of one part: all, and trained ones."""

    total: int
    trainable: int


@dataclass(frozen=True)
class Memory:
    """GPU memory of one rank at one ZeRO stage, in GiB."""

    stage: int
    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """Everything, with the fixed overhead."""
        return self.weights + self.gradients + self.optimizer + self.activations + OVERHEAD_GIB


def num_views(recipe: TrainRecipe, embodiment: Embodiment) -> int:
    """Images of one sample."""
    return embodiment.num_views if data_kind_of(recipe) == "robot" else 1


def _acts(recipe: TrainRecipe) -> bool:
    """Whether the model is a PokeVLA, with queries, head and decoders."""
    return model_of(recipe) == "pokevla"


def count_parameters(recipe: TrainRecipe, embodiment: Embodiment = LIBERO) -> dict[str, Parameters]:
    """Parameters by part, adapters included."""
    size = preset_size(recipe.model)
    modes = recipe.trainable
    counted = {
        "vision": _part(size.vision, modes.vision, recipe),
        "projector": _part(size.projector, modes.projector, recipe),
        "language_model": _part(size.language_model, modes.language_model, recipe),
    }
    if _acts(recipe):
        robot = size.per_robot(embodiment)
        counted["head_and_decoders"] = Parameters(size.own_total + robot, size.own_trainable + robot)
    return counted


def _part(part: Part, mode: str, recipe: TrainRecipe) -> Parameters:
    if mode == "full":
        return Parameters(part.total, part.used)
    if mode == "lora" and recipe.lora is not None:
        # With a list of target modules this is the upper bound: every Linear has an adapter.
        adapters = recipe.lora.rank * part.lora_per_rank
        return Parameters(part.total + adapters, adapters)
    return Parameters(part.total, 0)


def sequence_length(recipe: TrainRecipe, embodiment: Embodiment = LIBERO) -> int:
    """Tokens of an average sample in the language model."""
    size = preset_size(recipe.model)
    text = min(TEXT_TOKENS[data_kind_of(recipe)], recipe.data.max_text_tokens)
    own = 1 + size.num_queries if _acts(recipe) else 0
    return num_views(recipe, embodiment) * size.patches + text + own


def flops_per_sample(recipe: TrainRecipe, embodiment: Embodiment = LIBERO) -> float:
    """Floating-point operations of one training sample, forward and backward, teachers excluded (they are cached).

    A Linear costs 2 operations per weight and token forward, as much again for the gradient of its input, and once
    more for that of its weight. A frozen part has no weight gradient, and no input gradient either if nothing before
    it trains (Megatron-LM, arXiv 2104.04473, appendix; the frozen case is arithmetic).
    """
    size = preset_size(recipe.model)
    views = num_views(recipe, embodiment)
    length = sequence_length(recipe, embodiment)
    patches = views * size.patches
    modes = recipe.trainable
    forward = {
        "vision": 2.0 * size.vision.used * patches
        + sum(views * _attention(tower, size.patches) for tower in size.towers),
        "projector": 2.0 * size.projector.used * patches,
        "language_model": 2.0 * (size.language_model.used - size.embedding) * length
        + _attention(size.language_stack, length),
    }
    total, upstream = 0.0, False
    for name, mode in (
        ("vision", modes.vision),
        ("projector", modes.projector),
        ("language_model", modes.language_model),
    ):
        # SEG and the action queries enter the language model as trained inputs.
        reached = upstream or (name == "language_model" and _acts(recipe))
        passes = 3.0 if mode == "full" else 2.0 if mode == "lora" or reached else 1.0
        if name == "language_model" and recipe.activation_checkpointing and passes > 1:
            passes += 1.0
        total += passes * forward[name]
        if mode == "lora" and recipe.lora is not None:
            tokens = length if name == "language_model" else patches
            total += 6.0 * recipe.lora.rank * getattr(size, name).lora_per_rank * tokens
        upstream = upstream or mode != "frozen"
    return total + (3.0 * _own_forward(size, views) if _acts(recipe) else 6.0 * size.embedding * ANSWER_TOKENS)


def _attention(stack: Stack, tokens: int) -> float:
    """Scores and weighted sum of all layers, over the full square (kernels for causal masks compute half of it)."""
    return 4.0 * tokens * tokens * stack.width * stack.layers


def _own_forward(size: PresetSize, views: int) -> float:
    """Forward operations of what PokeVLA adds: the head's keys and values, geometry projector, mask decoders."""
    tokens = views * size.patches
    hidden, width = size.language_stack.width, size.head.width
    head = size.head.layers * (4.0 * hidden * width * (tokens + size.num_queries) + 2.0 * 12 * width * width * 8)
    geometry = 2.0 * tokens * (hidden * size.vggt_shape[1] + size.vggt_shape[1] ** 2)
    channels, rows, columns = size.sam_shape
    pixels = rows * columns
    # Two decoders per view, each: two layers and a last attention whose image side has Linears C -> C/2 (ten of
    # them), then transposed convolutions C -> C/4 (2x2 on the grid) and C/4 -> C/8 (2x2 on twice the grid).
    attention = 2.0 * 10 * channels * (channels // 2) * pixels
    upscaling = 2.0 * 4 * pixels * (channels * channels // 4 + 4 * (channels // 4) * (channels // 8))
    return head + geometry + views * 2 * (attention + upscaling)


def memory_per_gpu(recipe: TrainRecipe, world_size: int, stage: int, embodiment: Embodiment = LIBERO) -> Memory:
    """Memory of one rank (ZeRO, arXiv 1910.02054, section 3), activations estimated to about a third.

    Bytes per weight are those of `pokevla.recipe.planning.precision`.
    """
    counted = count_parameters(recipe, embodiment).values()
    total, trainable = sum(part.total for part in counted), sum(part.trainable for part in counted)
    precision = PRECISIONS[recipe.precision]
    return Memory(
        stage=stage,
        weights=total * precision.weight_bytes / (world_size if stage >= 3 else 1) / GIB,
        gradients=trainable * precision.gradient_bytes / (world_size if stage >= 2 else 1) / GIB,
        optimizer=trainable * precision.optimizer_bytes / (world_size if stage >= 1 else 1) / GIB,
        activations=recipe.batch.micro * activation_bytes_per_sample(recipe, embodiment) / GIB,
    )


def activation_bytes_per_sample(recipe: TrainRecipe, embodiment: Embodiment = LIBERO) -> float:
    """Tensors kept for the backward pass of one sample. Parts without a backward pass keep nothing."""
    size = preset_size(recipe.model)
    views = num_views(recipe, embodiment)
    length = sequence_length(recipe, embodiment)
    scale = PRECISIONS[recipe.precision].weight_bytes / 2  # all below is in bf16
    kept = 0.0
    if recipe.trainable.vision != "frozen":
        kept += scale * views * sum(_block_bytes(tower) * tower.layers * size.patches for tower in size.towers)
    block = _block_bytes(size.language_stack) * length
    if recipe.activation_checkpointing:
        kept += scale * (2.0 * size.language_stack.width * length * size.language_stack.layers + block)
    else:
        kept += scale * block * size.language_stack.layers
    if not _acts(recipe):
        # Logits of the trained positions: bf16, their fp32 copy and its gradient.
        return kept + 10.0 * ANSWER_TOKENS * size.embedding / size.language_stack.width
    channels, rows, columns = size.sam_shape
    # About forty tensors of the image embedding's size live in each of the two decoder passes per view.
    kept += scale * 2 * views * 40 * 2.0 * channels * rows * columns
    return kept + scale * 2.0 * 2 * size.head.width * size.head.layers * views * size.patches


def _block_bytes(stack: Stack) -> float:
    """Bytes kept per token in one block in bf16 with fused attention (arXiv 2205.05198, 34 per channel at MLP x 4)."""
    return 26.0 * stack.width + (8.0 if stack.gated else 4.0) * stack.mlp_width
