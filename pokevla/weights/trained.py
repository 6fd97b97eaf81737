"""Combines a trained model: frozen weights from the base model, trained ones from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from pokevla.embodiment.reading import read_embodiment
from pokevla.errors import CheckpointError
from pokevla.recipe.load import recipe_hash_at
from pokevla.recipe.schema import TrainRecipe
from pokevla.runs.checkpoints import MARKER, CheckpointInfo
from pokevla.weights.base_model import build_base
from pokevla.weights.frozen_hash import frozen_hash
from pokevla.weights.named_tensors import MergedWeights, Weights, WeightSpec, has_adapters, stored_dtype
from pokevla.weights.zero_layout import CheckpointWeights, open_checkpoint


class TrainedWeights:
    """All weights of a trained model, with LoRA unmerged and tied weights once.

    Memory: the frozen part of the base model in fp32 and the weight being read. While the base model is built, all of
    it.
    """

    def __init__(self, base: nn.Module, checkpoint: CheckpointWeights) -> None:
        self._checkpoint = checkpoint
        state = _stored_once(base)
        self._kept = {name: value.detach() for name, value in state if name not in checkpoint.specs}
        self._specs = {name: WeightSpec(tuple(value.shape), stored_dtype(value.dtype)) for name, value in state}
        self.buffers = frozenset(name for name, value in state if not isinstance(value, nn.Parameter))

    @property
    def specs(self) -> Mapping[str, WeightSpec]:
        """Shape and dtype by name, in the model's order."""
        return self._specs

    def read(self, name: str) -> Tensor:
        """One weight."""
        if name in self._kept:
            return self._kept[name].to(self._specs[name].dtype).contiguous()
        return self._checkpoint.read(name)


def _stored_once(model: nn.Module) -> list[tuple[str, Tensor]]:
    """The state dict without the second names of tied weights."""
    seen: set[int] = set()
    once = []
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            once.append((name, value))
    return once


def open_trained(recipe: TrainRecipe, folder: Path, info: CheckpointInfo) -> TrainedWeights:
    """Rebuild the base model of a checkpoint and combine it with the checkpoint's weights.

    Raises:
        CheckpointError: the recipe or the frozen weights differ from those of the training, or a trained weight is
            missing or has another shape.
    """
    if info.recipe_hash != recipe_hash_at(recipe, info.settings):
        raise CheckpointError(f"{folder} was saved with another recipe than the run's recipe.yaml.", "Restore that.")
    base = build_base(recipe, read_embodiment(info.embodiment, folder / MARKER))
    if info.frozen_hash != frozen_hash(base):
        raise CheckpointError(
            f"The base model is not the one {folder} was trained from.",
            "Restore what the recipe's model.vlm and model.sam named.",
        )
    stored = open_checkpoint(folder, info)
    shapes = {name: tuple(value.shape) for name, value in _stored_once(base)}
    trainable = {name for name, parameter in base.named_parameters() if parameter.requires_grad}
    missing, unknown = sorted(trainable - set(stored.specs)), sorted(set(stored.specs) - set(shapes))
    if missing:
        raise CheckpointError(f"{folder} lacks {len(missing)} trained weights (first: {missing[0]}).")
    if unknown:
        raise CheckpointError(f"{folder} has {len(unknown)} weights the model does not know (first: {unknown[0]}).")
    for name, spec in stored.specs.items():
        if spec.shape != shapes[name]:
            raise CheckpointError(f"{folder} has {name} of shape {spec.shape}, the model has {shapes[name]}.")
    return TrainedWeights(base, stored)


def lora_scaling(recipe: TrainRecipe) -> float | None:
    """Factor of a LoRA update, alpha / rank; None without LoRA."""
    return recipe.lora.alpha / recipe.lora.rank if recipe.lora is not None else None


def merged(weights: Weights, recipe: TrainRecipe) -> Weights:
    """The weights with LoRA merged, if there is any."""
    scaling = lora_scaling(recipe)
    return MergedWeights(weights, scaling) if scaling is not None and has_adapters(weights) else weights
