"""Merges LoRA into the weights it adapts, from a checkpoint or from the output of `consolidate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from checkpoints_tools.consolidate import LORA_SCALING, header_metadata
from checkpoints_tools.source import CheckpointSource, WeightsSource
from pokevla.errors import CheckpointError, UsageError
from pokevla.files.writing import atomic_folder
from pokevla.weights.named_tensors import MergedWeights, has_adapters
from pokevla.weights.safetensors_files import FREE_SPACE, FileWeights, write_weights
from pokevla.weights.trained import lora_scaling, open_trained


def merge_lora(
    source: CheckpointSource | WeightsSource,
    out: Path,
    *,
    max_file_bytes: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> MergedWeights:
    """Write plain weights to the new folder `out`: fp32 safetensors under the names of the model without LoRA.

    `pokevla ckpt export` does the same and adds what a policy needs. Memory: three tensors of the largest layer, and
    for a checkpoint also the base model.

    Raises:
        UsageError: the source has no LoRA.
        CheckpointError: `out` exists, the source cannot be read, or its LoRA scaling is unknown.
        DiskFullError: disk full. Nothing is left under the name `out`.
    """
    with atomic_folder(out, kind=CheckpointError, remedy=FREE_SPACE) as new, _opened(source) as (weights, metadata):
        write_weights(weights, new, metadata=metadata, max_file_bytes=max_file_bytes, on_progress=on_progress)
    return weights


@contextmanager
def _opened(source: CheckpointSource | WeightsSource) -> Iterator[tuple[MergedWeights, dict[str, str]]]:
    if isinstance(source, CheckpointSource):
        scaling = lora_scaling(source.recipe)
        if scaling is None:
            raise UsageError(f"{source.folder} was trained without LoRA.", "Use: pokevla ckpt consolidate")
        trained = open_trained(source.recipe, source.folder, source.info)
        metadata = header_metadata(source, trained)
        metadata.pop(LORA_SCALING, None)
        yield MergedWeights(trained, scaling), metadata
        return
    with FileWeights(source.folder) as weights:
        if not has_adapters(weights):
            raise UsageError(f"{source.folder} has no LoRA: its weights are already plain.")
        metadata = dict(weights.metadata)
        try:
            scaling = float(metadata.pop(LORA_SCALING))
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{source.folder} has no LoRA scaling (alpha / rank) in its file headers.",
                "Merge from the run instead, or consolidate it again.",
            ) from error
        yield MergedWeights(weights, scaling), metadata
