"""Consolidates the shards of a checkpoint into one fp32 model, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from checkpoints_tools.source import CheckpointSource
from pokevla.errors import CheckpointError
from pokevla.files.writing import atomic_folder
from pokevla.weights.named_tensors import Weights, has_adapters
from pokevla.weights.safetensors_files import FREE_SPACE, write_weights
from pokevla.weights.trained import lora_scaling, open_trained
from pokevla.weights.zero_layout import open_checkpoint

LORA_SCALING = "lora_scaling"
"""Key in the file headers for alpha / rank as text, which `merge-lora` needs."""


def consolidate(
    source: CheckpointSource,
    out: Path,
    *,
    trained_only: bool = False,
    max_file_bytes: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Weights:
    """Write all weights of a checkpoint to the new folder `out` as safetensors, under the names of training.

    Frozen weights come from the base model that the recipe names and are checked by their hash; LoRA stays unmerged.
    `trained_only` leaves out the frozen weights and needs no base model.

    Memory, measured by benchmarks/consolidation.py: with `trained_only` the largest tensor and the layout of the
    files; otherwise also one copy of the base model while its frozen part is written.

    Returns:
        What was written.

    Raises:
        CheckpointError: `out` exists, the base model does not match, or a file is damaged.
        DiskFullError: disk full. Nothing is left under the name `out`.
    """
    with atomic_folder(out, kind=CheckpointError, remedy=FREE_SPACE) as new:
        weights: Weights
        if trained_only:
            weights = open_checkpoint(source.folder, source.info)
        else:
            weights = open_trained(source.recipe, source.folder, source.info)
        write_weights(
            weights,
            new,
            metadata=header_metadata(source, weights),
            max_file_bytes=max_file_bytes,
            on_progress=on_progress,
        )
    return weights


def header_metadata(source: CheckpointSource, weights: Weights) -> dict[str, str]:
    """Metadata for the file headers."""
    info = source.info
    metadata = {"run": source.recipe.name, "step": str(info.step), "recipe_hash": info.recipe_hash}
    scaling = lora_scaling(source.recipe)
    if scaling is not None and has_adapters(weights):
        metadata[LORA_SCALING] = repr(scaling)
    return metadata
