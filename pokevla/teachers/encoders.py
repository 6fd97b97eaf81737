"""Frozen teachers behind one interface: images in, features out, and a spec that says what they are."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import SamVisionModel

from pokevla.errors import CheckpointError, DataError
from pokevla.model.presets import preset
from pokevla.recipe.sections import TeacherConfig
from pokevla.teachers.sam import PIXEL_MEAN, PIXEL_STD, encode_sam, load_sam_weights, sam_config
from pokevla.teachers.vggt import IMAGENET_MEAN, IMAGENET_STD, VGGTConfig, VGGTEncoder
from pokevla.teachers.weights import file_hash, load_strictly, read_state, state_hash

RANDOM_NOTE = "random weights: carries no knowledge"

_SAM_PRESETS = ("tiny", "mini", "vit_b", "vit_l", "vit_h")
_VGGT_PRESETS = ("tiny", "mini", "vggt_1b")


@dataclass(frozen=True)
class TeacherSpec:
    """What a teacher is. All of it enters a cache's fingerprint."""

    kind: str
    preset: str
    output_shape: tuple[int, ...]  # of one view: (C, G, G) or (N, T)
    weights_hash: str  # sha256 of the file, or of the random tensors
    random: bool
    preprocessing: str
    compute_dtype: str = "float32"

    def describe(self) -> str:
        """One line for people."""
        weights = RANDOM_NOTE if self.random else f"weights {self.weights_hash[:12]}"
        return f"{self.kind} {self.preset}, {' x '.join(map(str, self.output_shape))} a view, {weights}"


@dataclass(frozen=True)
class Teacher:
    """A frozen encoder on one device."""

    spec: TeacherSpec
    module: nn.Module
    forward: Callable[[Tensor], Tensor]
    device: torch.device

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Encode clean images (B, V, H, W, 3) uint8 -> float32 (B, V, C, G, G) for SAM, (B, V, N, T) for VGGT.

        Views are in the order base, wrist: VGGT takes the first as its reference.

        Raises:
            DataError: images of another type or shape, or not square (crops are fractions of a square).
        """
        if images.dtype != torch.uint8 or images.ndim != 5 or images.shape[-1] != 3:
            raise DataError(f"A teacher needs uint8 images (B, V, H, W, 3), not {images.dtype} {tuple(images.shape)}.")
        if images.shape[2] != images.shape[3]:
            raise DataError(f"A teacher needs square images, not {images.shape[3]} x {images.shape[2]} px.")
        return self.forward(images.to(self.device)).float()


def vggt_config(name: str) -> VGGTConfig:
    """Return the sizes of teacher preset `name`: tiny, mini (as the model preset of that name) or vggt_1b."""
    if name == "vggt_1b":
        return VGGTConfig(image_size=518, width=1024, num_heads=16, dino_depth=24, depth=24, pooled_grid=16)
    geometry = preset(name).geometry
    heads, dino_depth, depth = (3, 1, 1) if name == "tiny" else (2, 2, 2)
    # One or two patches more than the target grid, so that the pooling of the published size is on the path.
    return VGGTConfig(14 * (geometry.grid + 1), geometry.target_dim // 2, heads, dino_depth, depth, geometry.grid)


def _preprocessing(kind: str, size: int) -> str:
    if kind == "sam":
        return f"longest side {size} px bilinear antialias; mean {PIXEL_MEAN} std {PIXEL_STD} of 0..255; pad"
    return f"{size} px bicubic antialias; clamp 0..1; mean {IMAGENET_MEAN} std {IMAGENET_STD}; uv code 0.1"


def _check_preset(config: TeacherConfig) -> None:
    known = _SAM_PRESETS if config.kind == "sam" else _VGGT_PRESETS
    if config.preset not in known:
        raise CheckpointError(
            f"{config.preset} is not a size of the teacher {config.kind}.", f"Choose one of {', '.join(known)}."
        )


def _random_module(config: TeacherConfig, *, on_meta: bool) -> nn.Module:
    """Build the module with weights that are a pure function of (kind, preset, seed), or without storage."""
    device = "meta" if on_meta else "cpu"
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(zlib.crc32(f"{config.kind}/{config.preset}/{config.seed}".encode()))
        if config.kind == "sam":
            return SamVisionModel(sam_config(config.preset))
        return VGGTEncoder(vggt_config(config.preset))


def _load(config: TeacherConfig, path: Path) -> nn.Module:
    module = _random_module(config, on_meta=True).to_empty(device="cpu")
    if config.kind == "sam":
        load_sam_weights(cast(SamVisionModel, module), path)
    else:
        load_vggt_weights(cast(VGGTEncoder, module), path)
    return module


def load_vggt_weights(module: VGGTEncoder, path: Path) -> None:
    """Load the `aggregator.` tensors of a VGGT file; its camera, depth, point and track heads are left out.

    Raises:
        CheckpointError: no aggregator in it, or one of another size.
    """
    state = {name: value for name, value in read_state(path).items() if name.startswith("aggregator.")}
    if not state:
        raise CheckpointError(
            f"{path} holds no `aggregator.` weights.", "Give a VGGT checkpoint for the teacher `vggt`."
        )
    load_strictly(module, state, path)


def _encode_vggt(module: VGGTEncoder, images: Tensor) -> Tensor:
    """(B, V, H, W, 3) uint8 -> (B, V, N, T)."""
    size = module.config.image_size
    pixels = images.flatten(0, 1).permute(0, 3, 1, 2).float() / 255.0
    if pixels.shape[-1] != size:
        pixels = functional.interpolate(pixels, size=(size, size), mode="bicubic", align_corners=False, antialias=True)
    return module(pixels.clamp(0.0, 1.0).unflatten(0, images.shape[:2]))


def output_shape(config: TeacherConfig) -> tuple[int, ...]:
    """Return the shape of one view's features: (C, G, G) or (N, T)."""
    _check_preset(config)
    if config.kind == "sam":
        sam = sam_config(config.preset)
        grid = int(cast(int, sam.image_size)) // int(cast(int, sam.patch_size))
        return sam.output_channels, grid, grid
    vggt = vggt_config(config.preset)
    return vggt.pooled_grid**2, 2 * vggt.width


def teacher_spec(config: TeacherConfig, module: nn.Module | None = None) -> TeacherSpec:
    """Return what the teacher of `config` is; `module` saves building random weights once more for their hash.

    Raises:
        CheckpointError: a preset of the other kind, or a weights file that is not there.
    """
    _check_preset(config)
    random = config.weights is None
    if config.weights is not None:
        weights_hash = file_hash(config.weights)
    else:
        weights_hash = state_hash(module if module is not None else _random_module(config, on_meta=False))
    size: Any = sam_config(config.preset).image_size if config.kind == "sam" else vggt_config(config.preset).image_size
    return TeacherSpec(
        kind=config.kind,
        preset=config.preset,
        output_shape=output_shape(config),
        weights_hash=weights_hash,
        random=random,
        preprocessing=_preprocessing(config.kind, int(size)),
    )


def build_teacher(config: TeacherConfig, device: str | torch.device = "cpu") -> Teacher:
    """Build a frozen teacher from its weights file, or with random weights from its seed.

    Raises:
        CheckpointError: a preset of the other kind, or weights that are missing, damaged or of another size.
    """
    _check_preset(config)
    module = _random_module(config, on_meta=False) if config.weights is None else _load(config, config.weights)
    spec = teacher_spec(config, module)
    module = module.to(device).eval().requires_grad_(False)
    if config.kind == "sam":
        sam = cast(SamVisionModel, module)
        return Teacher(spec, sam, lambda images: encode_sam(sam, images), torch.device(device))
    vggt = cast(VGGTEncoder, module)
    return Teacher(spec, vggt, lambda images: _encode_vggt(vggt, images), torch.device(device))
