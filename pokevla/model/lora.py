"""Selects how each part of the VLM trains: frozen, LoRA or full."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal, TypeVar

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from pokevla.errors import UsageError
from pokevla.model.seeding import seeded
from pokevla.model.vision_encoders.backbone import VisionBackbone
from pokevla.model.vision_encoders.towers import freeze_unused
from pokevla.model.vla import PokeVLA
from pokevla.model.vlm import PokeVLM

TrainMode = Literal["frozen", "lora", "full"]
PARTS = {"vision": "vision_backbone", "projector": "projector", "language_model": "language_model"}
ModelT = TypeVar("ModelT", bound=PokeVLM | PokeVLA)


@dataclass(frozen=True)
class TrainableSpec:
    """How each part of the VLM trains. Head, queries, SEG, decoders and projectors of the VLA always train in full."""

    vision: TrainMode = "lora"
    projector: TrainMode = "lora"
    language_model: TrainMode = "lora"
    lora_rank: int = 64  # VLA-Adapter; OFT 32
    lora_alpha: float = 128.0  # VLA-Adapter: 2 * rank
    lora_dropout: float = 0.0
    lora_targets: str = "all-linear"  # or a comma-separated list of module names: "q_proj,v_proj"


def vlm_of(model: PokeVLM | PokeVLA) -> PokeVLM:
    """The PokeVLM itself, or the one inside a PokeVLA."""
    return model.vlm if isinstance(model, PokeVLA) else model


def _linear_names(part: nn.Module) -> list[str]:
    """Full names of the Linears in `part` that receive a gradient: excludes lm_head and everything after the vision
    block that provides the features."""
    idle: list[str] = []
    if isinstance(part, VisionBackbone):
        for tower, kind in part.towers.items():
            encoder = part.get_submodule(tower)
            idle += [f"{tower}.{name}" for name, _ in encoder.named_modules() if kind.is_unused(encoder, f"{name}.")]
    skip = {*idle, "lm_head"}
    return [name for name, module in part.named_modules() if isinstance(module, nn.Linear) and name not in skip]


def _targets(part: nn.Module, target_modules: str) -> list[str]:
    names = _linear_names(part)
    if target_modules == "all-linear":
        return names
    last_names = {name.rpartition(".")[2] for name in names}
    listed = {word.strip() for word in target_modules.split(",") if word.strip()}
    return [name for name in names if name.rpartition(".")[2] in listed & last_names]


def _check_spec(vlm: PokeVLM, spec: TrainableSpec) -> None:
    for field in PARTS:
        mode = getattr(spec, field)
        if mode not in ("frozen", "lora", "full"):
            raise UsageError(f"{field} is {mode!r}.", "Choose frozen, lora or full.")
    if spec.lora_rank < 1:
        raise UsageError(f"lora_rank is {spec.lora_rank}.", "Give a rank of at least 1.")
    if has_lora(vlm):
        raise UsageError(
            "The model already has LoRA layers.", "Build a new model or merge them: pokevla ckpt merge-lora."
        )
    if spec.lora_targets == "all-linear":
        return
    known = sorted({name.rpartition(".")[2] for part in PARTS.values() for name in _linear_names(getattr(vlm, part))})
    for word in (word.strip() for word in spec.lora_targets.split(",")):
        if word not in known:
            nearest = difflib.get_close_matches(word, known, n=1)
            hint = f"Did you mean {nearest[0]}?" if nearest else f"Known: {', '.join(known)}."
            raise UsageError(f"lora_targets names {word!r}, which is not a Linear of this model.", hint)


def apply_trainable(model: ModelT, spec: TrainableSpec, *, seed: int = 0) -> ModelT:
    """Set which parameters train, in place, and return the model.

    LoRA by peft: Gaussian A, zero B (OFT, VLA-Adapter), so that outputs are initially unchanged. Base weights under
    LoRA are frozen. A part whose Linears match none of `lora_targets` stays frozen.

    Raises:
        UsageError: a mode or target is unknown, the rank is below 1, or the model already has LoRA layers.
    """
    vlm = vlm_of(model)
    _check_spec(vlm, spec)
    for field, name in PARTS.items():
        part, mode = getattr(vlm, name), getattr(spec, field)
        part.requires_grad_(mode == "full")
        targets = _targets(part, spec.lora_targets) if mode == "lora" else []
        if targets:
            config = LoraConfig(
                r=spec.lora_rank,
                lora_alpha=spec.lora_alpha,  # pyright: ignore[reportArgumentType]  (peft divides it, floats work)
                lora_dropout=spec.lora_dropout,
                target_modules=targets,
                init_lora_weights="gaussian",
            )
            with seeded(seed, f"lora.{name}"):
                inject_adapter_in_model(config, part)
    for tower, kind in vlm.vision_backbone.towers.items():
        freeze_unused(kind, vlm.vision_backbone.get_submodule(tower))
    if isinstance(model, PokeVLA) and not model.config.vlm.language_model.tie_embeddings:
        vlm.language_model.lm_head.requires_grad_(False)
    return model


def has_lora(model: nn.Module) -> bool:
    """Whether any layer of `model` has LoRA."""
    return any(isinstance(module, LoraLayer) for module in model.modules())
