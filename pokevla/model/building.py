"""Building models from a configuration and a seed, saving and loading them as safetensors + config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from pokevla.errors import CheckpointError, UsageError
from pokevla.model.lora import TrainableSpec, apply_trainable, has_lora, merge_lora, vlm_of
from pokevla.model.presets import (
    PokeVLAConfig,
    PokeVLMConfig,
    config_from_dict,
    to_dict,
    vlm_config_from_dict,
)
from pokevla.model.vla import PokeVLA
from pokevla.model.vlm import PokeVLM

__all__ = [
    "TrainableSpec",
    "apply_trainable",
    "build_vla",
    "build_vlm",
    "load_model",
    "load_weights",
    "merge_lora",
    "parameter_report",
    "save_model",
]

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
SCHEMA_VERSION = 1


def build_vlm(config: PokeVLMConfig, *, seed: int = 0, weights: Path | None = None) -> PokeVLM:
    """Build a PokeVLM: random weights as a pure function of `seed`, or those of our own export `weights`.

    Raises:
        UsageError: sizes that do not fit together.
        CheckpointError: weights whose names or shapes do not fit.
    """
    model = PokeVLM(config, seed)
    if weights is not None:
        load_weights(model, weights)
    return model


def build_vla(config: PokeVLAConfig, *, seed: int = 0, vlm_weights: Path | None = None) -> PokeVLA:
    """Build a PokeVLA of random weights; `vlm_weights` (an exported PokeVLM) fills its VLM. Raises as `build_vlm`."""
    model = PokeVLA(config, seed)
    if vlm_weights is not None:
        load_weights(model.vlm, vlm_weights)
    return model


def _stored_names(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict without the second name of tied embeddings."""
    state = dict(model.state_dict())
    if vlm_of(model).config.language_model.tie_embeddings:  # pyright: ignore[reportArgumentType]
        state = {name: value for name, value in state.items() if not name.endswith("lm_head.weight")}
    return state


def load_weights(model: PokeVLM | PokeVLA, path: Path) -> None:
    """Load our own export (a folder, or its safetensors file) into `model`, strictly.

    Raises:
        CheckpointError: no file there, not a safetensors file, or names or shapes that differ (the first are named).
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
            f"{file}: {wrong[0]} has shape {shapes[wrong[0]]}, the model wants {tuple(target[wrong[0]].shape)} "
            f"({len(wrong)} such tensors).",
            remedy,
        )


def save_model(model: PokeVLM | PokeVLA, folder: Path) -> None:
    """Write `model.safetensors` and `config.json` into `folder` (made if absent).

    Raises:
        UsageError: LoRA is not merged yet.
    """
    if has_lora(model):
        raise UsageError("The model still has LoRA layers.", "Merge them first with merge_lora.")
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in _stored_names(model).items()}
    save_file(state, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    kind = "vla" if isinstance(model, PokeVLA) else "vlm"
    content = {"schema_version": SCHEMA_VERSION, "kind": kind, "config": to_dict(model.config)}
    (folder / CONFIG_NAME).write_text(json.dumps(content, indent=2) + "\n")


def load_model(folder: Path) -> PokeVLM | PokeVLA:
    """Load what `save_model` wrote.

    Raises:
        CheckpointError: a file is missing or does not fit the other.
    """
    content = _read_config(folder / CONFIG_NAME)
    try:
        model = (
            build_vla(config_from_dict(content["config"]))
            if content["kind"] == "vla"
            else build_vlm(vlm_config_from_dict(content["config"]))
        )
    except UsageError as error:
        raise CheckpointError(f"{folder / CONFIG_NAME}: {error}", "Export the model again.") from error
    load_weights(model, folder)
    return model


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.", "Give the folder of an exported model.")
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: not JSON ({error}).", "Export the model again.") from error
    fits = (
        isinstance(content, dict)
        and content.get("schema_version") == SCHEMA_VERSION
        and content.get("kind") in ("vlm", "vla")
        and "config" in content
    )
    if not fits:
        raise CheckpointError(
            f"{path}: not the config.json of a PokeVLM or PokeVLA of schema version {SCHEMA_VERSION}.",
            "Export the model again with this version.",
        )
    return content


def parameter_report(model: PokeVLM | PokeVLA) -> list[tuple[str, int, int]]:
    """Count parameters by part: (part, total, trainable), the last row is the sum. Tied weights count once."""
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
