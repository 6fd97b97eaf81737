"""The VGGT teacher: sizes, input and weights of the aggregator. Its field `vggt` has pooled tokens (N, T) per view."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.nn import functional

from pokevla.model.presets import preset
from pokevla.teachers.teacher import TeacherDefinition
from pokevla.teachers.vggt_aggregator import IMAGENET_MEAN, IMAGENET_STD, Pooling, VGGTConfig, VGGTEncoder
from pokevla.teachers.weights import load_part
from pokevla.weights.formats.vggt import KIND

FIELD = "vggt"
AREA = "_area"
"""Ending of a preset whose grid is pooled by averaging areas."""


def vggt_config(name: str) -> VGGTConfig:
    """Return the sizes of teacher preset `name`: tiny or mini (for the model presets of these names), or vggt_1b; with
    the ending `_area`, the same with the other pooling."""
    size = name.removesuffix(AREA)
    pooling: Pooling = "bilinear" if size == name else "area"
    if size == "vggt_1b":
        return VGGTConfig(518, 1024, num_heads=16, dino_depth=24, depth=24, pooled_grid=16, pooling=pooling)
    geometry = preset(size).geometry
    heads, dino_depth, depth = (3, 1, 1) if size == "tiny" else (2, 2, 2)
    # One or two patches more than the target grid, so that these sizes also use the pooling of the published one.
    image_size, width = 14 * (geometry.grid + 1), geometry.target_dim // 2
    return VGGTConfig(image_size, width, heads, dino_depth, depth, geometry.grid, pooling)


def load_vggt_weights(module: VGGTEncoder, path: Path) -> None:
    """Load the `aggregator.` tensors of a VGGT file or folder, or what `pokevla model import vggt` has written. Its
    camera, depth, point and track heads are ignored.

    Raises:
        CheckpointError: there is no aggregator, or one of another size.
    """
    load_part(module, KIND, path)


def encode_vggt(module: VGGTEncoder, images: Tensor) -> Tensor:
    """(B, V, H, W, 3) uint8 -> (B, V, N, T)."""
    size = module.config.image_size
    pixels = images.flatten(0, 1).permute(0, 3, 1, 2).float() / 255.0
    if pixels.shape[-1] != size:
        pixels = functional.interpolate(pixels, size=(size, size), mode="bicubic", align_corners=False, antialias=True)
    return module(pixels.clamp(0.0, 1.0).unflatten(0, images.shape[:2]))


def _fields(name: str) -> dict[str, tuple[int, ...]]:
    config = vggt_config(name)
    return {FIELD: (config.pooled_grid**2, 2 * config.width)}


def _preprocessing(name: str) -> str:
    config = vggt_config(name)
    pooling = "" if config.pooling == "bilinear" else f"; {config.pooling} pooling"
    return (
        f"{config.image_size} px bicubic antialias; clamp 0..1; mean {IMAGENET_MEAN} std {IMAGENET_STD}; "
        f"uv code 0.1{pooling}"
    )


VGGT = TeacherDefinition(
    presets=("tiny", "mini", "vggt_1b", "tiny_area", "mini_area", "vggt_1b_area"),
    fields=_fields,
    preprocessing=_preprocessing,
    build=lambda name: VGGTEncoder(vggt_config(name)),
    encode=lambda module, images: {FIELD: encode_vggt(module, images)},
    load_weights=load_vggt_weights,
)
