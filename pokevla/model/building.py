"""Builds models from a configuration and a seed, and loads exported weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from pokevla.errors import CheckpointError
from pokevla.model.lora import TrainableSpec, apply_trainable, vlm_of
from pokevla.model.presets import (
    PokeVLAConfig,
    PokeVLMConfig,
)
from pokevla.model.vla import PokeVLA
from pokevla.model.vlm import PokeVLM

__all__ = [
    "TrainableSpec",
    "apply_trainable",
    "build_vla",
    "build_vlm",
    "load_weights",
    "parameter_report",
]

WEIGHTS_NAME = "model.safetensors"


def build_vlm(config: PokeVLMConfig, *, seed: int = 0, weights: Path | None = None) -> PokeVLM:
    """Build a PokeVLM with random weights, a pure function of `seed`, or with the weights of our own export `weights`.

    Raises:
        UsageError: sizes are inconsistent.
        CheckpointError: names or shapes of the weights do not match.
    """
    model = PokeVLM(config, seed)
    if weights is not None:
        load_weights(model, weights)
    return model


def build_vla(config: PokeVLAConfig, *, seed: int = 0, vlm_weights: Path | None = None) -> PokeVLA:
    """Build a PokeVLA with random weights. `vlm_weights` (an exported PokeVLM) initialises its VLM. Raises the errors
    of `build_vlm`."""
    model = PokeVLA(config, seed)
    if vlm_weights is not None:
        load_weights(model.vlm, vlm_weights)
    return model


def _stored_names(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict without the duplicate name of tied embeddings."""
    state = dict(model.state_dict())
    if vlm_of(model).config.language_model.tie_embeddings:  # pyright: ignore[reportArgumentType]
        state = {name: value for name, value in state.items() if not name.endswith("lm_head.weight")}
    return state


def load_weights(model: PokeVLM | PokeVLA, path: Path) -> None:
    """Load our own export (a folder, or its safetensors file) into `model`, strictly.

    Raises:
        CheckpointError: the file is missing or not a safetensors file, names or shapes differ, or a number is not
            finite. The message gives the first ones.
    """
    file = path / WEIGHTS_NAME if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{file}: no weights here.", "Give the folder of an exported model.")
    target = _stored_names(model)
    try:
        with safe_open(file, framework="pt") as stored:
            names = set(stored.keys())
            _refuse_misfit(file, names, target, {n: tuple(stored.get_slice(n).get_shape()) for n in names})
            with torch.no_grad():
                for name, value in target.items():
                    value.copy_(stored.get_tensor(name))
                    if not torch.isfinite(value).all():
                        raise CheckpointError(f"{file}: {name} holds NaN or infinity.", "Export it again.")
    except SafetensorError as error:
        raise CheckpointError(f"{file}: not a readable safetensors file ({error}).", "Export it again.") from error


def _refuse_misfit(
    file: Path, names: set[str], target: dict[str, torch.Tensor], shapes: dict[str, tuple[int, ...]]
) -> None:
    remedy = "Take the weights of the same preset and kind (VLM or VLA), with LoRA merged."
    missing, unknown = sorted(set(target) - names), sorted(names - set(target))
    if missing or unknown:
        raise CheckpointError(
            f"{file}: {len(missing)} tensors missing (first: {missing[:1]}), "
            f"{len(unknown)} unknown (first: {unknown[:1]}).",
            remedy,
        )
    wrong = [name for name in sorted(target) if tuple(target[name].shape) != shapes[name]]
    if wrong:
        raise CheckpointError(
            f"{file}: {wrong[0]} has shape {shapes[wrong[0]]}, the model expects {tuple(target[wrong[0]].shape)} "
            f"({len(wrong)} such tensors).",
            remedy,
        )


def parameter_report(model: PokeVLM | PokeVLA) -> list[tuple[str, int, int]]:
    """Count parameters by part: rows of (part, total, trainable), the last one being the sum. Tied weights count
    once."""
    vlm = vlm_of(model)
    parts: list[tuple[str, nn.Module | nn.Parameter]] = [
        ("dino_featurizer", vlm.vision_backbone.dino_featurizer),
        ("siglip_featurizer", vlm.vision_backbone.siglip_featurizer),
        ("projector", vlm.projector),
        ("language_model", vlm.language_model),
    ]
    if isinstance(model, PokeVLA):
        own = {**dict(model.named_children()), **dict(model.named_parameters(recurse=False))}
        parts += [(name, part) for name, part in own.items() if name != "vlm"]
    rows = [(name, *_count(part)) for name, part in parts]
    return [*rows, ("all", sum(row[1] for row in rows), sum(row[2] for row in rows))]


def _count(part: nn.Module | nn.Parameter) -> tuple[int, int]:
    parameters = [part] if isinstance(part, nn.Parameter) else list(part.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
