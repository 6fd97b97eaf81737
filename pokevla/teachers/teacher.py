"""Frozen teachers: the definition of an entry of `pokevla.parts.TEACHERS`, and the encoder built from it.

A teacher outputs one or more named feature fields for every view. A field is a grid (C, G, G), or the tokens (N, T) of
a square, row-major grid. Everything else (storing, cropping, aligning) follows from the shapes of the fields.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pokevla.errors import CheckpointError, DataError
from pokevla.parts import TEACHERS, get_part
from pokevla.recipe.sections import TeacherConfig
from pokevla.teachers.weights import file_hash, load_file, state_hash

FLOAT32, AUTOCAST = "float32", "bfloat16 autocast"
RANDOM_NOTE = "random weights: carries no knowledge"


@dataclass(frozen=True)
class TeacherDefinition:
    """One kind of teacher: an entry of `pokevla.parts.TEACHERS`."""

    presets: tuple[str, ...]
    """Names of the available sizes."""
    fields: Callable[[str], dict[str, tuple[int, ...]]]
    """preset -> name of each field and its shape for one view, (C, G, G) or (N, T). Cheap: builds no weights."""
    preprocessing: Callable[[str], str]
    """preset -> one line that describes the preprocessing of an image. Part of a cache's fingerprint."""
    build: Callable[[str], nn.Module]
    """preset -> encoder with random weights from torch's global generator, which the caller seeds."""
    encode: Callable[[Any, Tensor], dict[str, Tensor]]
    """(encoder, images (B, V, H, W, 3) uint8 on its device) -> fields, each (B, V, C, G, G) or (B, V, N, T)."""
    load_weights: Callable[[Any, Path], None] = load_file
    """(encoder, file): load all weights, or raise CheckpointError. The default expects exactly the encoder's names."""


@dataclass(frozen=True)
class TeacherSpec:
    """The identity of a teacher. All fields are part of a cache's fingerprint."""

    kind: str
    preset: str
    fields: dict[str, tuple[int, ...]]  # shape for one view: (C, G, G) or (N, T)
    weights_hash: str  # sha256 of the file, or of the random tensors
    random: bool
    preprocessing: str
    compute_dtype: str = FLOAT32
    """`float32`, or `bfloat16 autocast`: matrix products in bfloat16."""

    def describe(self) -> str:
        """One readable line: kind, preset, shapes and origin of the weights."""
        weights = RANDOM_NOTE if self.random else f"weights {self.weights_hash[:12]}"
        shapes = " and ".join(" x ".join(map(str, shape)) for shape in self.fields.values())
        return f"{self.kind} {self.preset}, {shapes} a view, {weights}"


@dataclass(frozen=True)
class Teacher:
    """A frozen encoder on one device."""

    spec: TeacherSpec
    module: nn.Module
    definition: TeacherDefinition
    device: torch.device

    @torch.inference_mode()
    def encode(self, images: Tensor) -> dict[str, Tensor]:
        """Encode uncropped images (B, V, H, W, 3) uint8 -> float32 fields by name, (B, V, C, G, G) or (B, V, N, T).

        Views are in the order of the dataset: VGGT uses the first as its reference.

        Raises:
            DataError: images have another type or shape, or are not square (crops are fractions of a square), or the
                fields differ from those the teacher declares.
        """
        if images.dtype != torch.uint8 or images.ndim != 5 or images.shape[-1] != 3:
            raise DataError(f"A teacher needs uint8 images (B, V, H, W, 3), not {images.dtype} {tuple(images.shape)}.")
        if images.shape[2] != images.shape[3]:
            raise DataError(f"A teacher needs square images, not {images.shape[3]} x {images.shape[2]} px.")
        # Autocast keeps norms and softmax in float32; the published code of SAM 2 and VGGT runs the encoders in it.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.compute_dtype == AUTOCAST):
            encoded = self.definition.encode(self.module, images.to(self.device))
        fields = {name: values.float() for name, values in encoded.items()}
        shapes = {name: tuple(values.shape[2:]) for name, values in fields.items()}
        if shapes != self.spec.fields:
            raise DataError(f"The teacher {self.spec.kind} returned {shapes} per view, not {self.spec.fields}.")
        return fields


def teacher_definition(config: TeacherConfig) -> TeacherDefinition:
    """The table entry that a recipe names.

    Raises:
        RecipeError: the table has no such entry.
        CheckpointError: the teacher has no such preset.
    """
    definition: TeacherDefinition = get_part("teacher", config.kind, TEACHERS)
    if config.preset not in definition.presets:
        raise CheckpointError(
            f"{config.preset} is not a size of the teacher {config.kind}.",
            f"Choose one of {', '.join(definition.presets)}.",
        )
    return definition


def _random_module(config: TeacherConfig, *, on_meta: bool) -> nn.Module:
    """Build the module with weights that are a pure function of (kind, preset, seed), or without storage."""
    definition = teacher_definition(config)
    device = "meta" if on_meta else "cpu"
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(zlib.crc32(f"{config.kind}/{config.preset}/{config.seed}".encode()))
        return definition.build(config.preset)


def _load(config: TeacherConfig, path: Path) -> nn.Module:
    module = _random_module(config, on_meta=True).to_empty(device="cpu")
    teacher_definition(config).load_weights(module, path)
    return module


def teacher_spec(config: TeacherConfig, module: nn.Module | None = None) -> TeacherSpec:
    """Return the identity of the teacher of `config`. Passing `module` avoids building random weights again to hash
    them.

    Raises:
        RecipeError, CheckpointError: as `teacher_definition`, or a weights file is missing.
    """
    definition = teacher_definition(config)
    if config.weights is not None:
        weights_hash = file_hash(config.weights)
    else:
        weights_hash = state_hash(module if module is not None else _random_module(config, on_meta=False))
    return TeacherSpec(
        kind=config.kind,
        preset=config.preset,
        fields=definition.fields(config.preset),
        weights_hash=weights_hash,
        random=config.weights is None,
        preprocessing=definition.preprocessing(config.preset),
        compute_dtype=AUTOCAST if config.precision == "bf16" else FLOAT32,
    )


def build_teacher(config: TeacherConfig, device: str | torch.device = "cpu") -> Teacher:
    """Build a frozen teacher from its weights file, or with random weights from its seed.

    Raises:
        RecipeError, CheckpointError: as `teacher_definition`, or the weights are missing, damaged or of another size.
    """
    definition = teacher_definition(config)
    module = _random_module(config, on_meta=False) if config.weights is None else _load(config, config.weights)
    spec = teacher_spec(config, module)
    return Teacher(spec, module.to(device).eval().requires_grad_(False), definition, torch.device(device))
