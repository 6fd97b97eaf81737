"""Image encoders: how to build them, read their features, and freeze the parameters that the features do not use.

Prismatic's two towers are timm ViTs whose features are the patches of the penultimate block
(github.com/TRI-ML/prismatic-vlms, prismatic/models/backbones/vision/dinosiglip_vit.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from pokevla.model.presets import VisionTowerConfig
from pokevla.parts import VISION_TOWERS, get_part


@dataclass(frozen=True)
class VisionTower:
    """One kind of image encoder: an entry of `pokevla.parts.VISION_TOWERS`."""

    build: Callable[[VisionTowerConfig], nn.Module]
    patch_features: Callable[[nn.Module, Tensor], Tensor]
    """(encoder, images (N, 3, S, S) normalised for it) -> (N, P, width)."""
    is_unused: Callable[[nn.Module, str], bool]
    """(encoder, name) -> whether `patch_features` does not use a parameter, or a module if the name ends with a dot."""
    set_checkpointing: Callable[[nn.Module, bool], None]
    """Recompute each block's activations in the backward pass, or keep them."""


def vision_tower(config: VisionTowerConfig) -> VisionTower:
    """The table entry that a configuration names. Raises RecipeError if there is none."""
    return get_part("vision tower", config.kind, VISION_TOWERS)


def build_tower(config: VisionTowerConfig) -> nn.Module:
    """Build an encoder with random weights. Unused parameters are frozen, so that the engine does not wait for their
    gradients."""
    kind = vision_tower(config)
    encoder = kind.build(config)
    freeze_unused(kind, encoder)
    return encoder


def freeze_unused(kind: VisionTower, encoder: nn.Module) -> None:
    """Freeze the parameters that the encoder's features do not use."""
    for name, parameter in encoder.named_parameters():
        if kind.is_unused(encoder, name):
            parameter.requires_grad_(False)


def build_timm_vit(config: VisionTowerConfig) -> VisionTransformer:
    """Build one timm ViT with random weights.

    The last block, the final norm and SigLIP's pooling head are kept, so that published weights load strictly.
    """
    tower = timm.create_model(
        config.timm_name,
        pretrained=False,
        num_classes=0,
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        reg_tokens=config.num_registers,
        init_values=config.layer_scale,
    )
    if not isinstance(tower, VisionTransformer):
        raise TypeError(f"timm built a {type(tower).__name__} for {config.timm_name}, not a VisionTransformer")
    if config.position_init == "sincos":
        with torch.no_grad():
            tower.get_parameter("pos_embed").copy_(sincos_position(config.grid, config.width)[None])
    return tower


def sincos_position(grid: int, width: int) -> Tensor:
    """2-D sine-cosine position code of a patch grid, row-major: (grid * grid, width), amplitude 1.

    Wavelengths increase geometrically from 2 to 4 * grid patches, so that the slowest pair is nearly linear in the
    coordinate. In training from scratch, timm's position code with deviation 0.02 is negligible against the patches'
    content; with this one, positions can be read out from the first step (ours, for presets without published weights).
    """
    num_waves = width // 4
    exponent = torch.arange(num_waves) / max(num_waves - 1, 1)
    frequency = 2 * math.pi / (2.0 * (2.0 * grid) ** exponent)  # (W,) radians per patch
    angle = torch.arange(grid, dtype=torch.float32)[:, None] * frequency  # (G, W)
    wave = torch.cat([angle.sin(), angle.cos()], dim=-1)  # (G, 2W)
    rows, columns = wave[:, None].expand(-1, grid, -1), wave[None].expand(grid, -1, -1)
    code = torch.cat([columns, rows], dim=-1).reshape(grid * grid, 4 * num_waves)
    return functional.pad(code, (0, width - 4 * num_waves))


def is_unused(tower: nn.Module, name: str) -> bool:
    """Whether a parameter, or a module `name.`, of a timm ViT comes after its penultimate block."""
    depth = len(cast(VisionTransformer, tower).blocks)
    return name.startswith((f"blocks.{depth - 1}.", "norm.", "fc_norm.", "attn_pool.", "head."))


def penultimate_patches(tower: nn.Module, images: Tensor) -> Tensor:
    """Return the penultimate block's patch tokens, without final norm, class token or register tokens.

    Args:
        images: (N, 3, S, S), normalised for this tower.

    Returns:
        (N, P, width)
    """
    vit = cast(VisionTransformer, tower)
    features = vit.forward_intermediates(
        images, indices=[len(vit.blocks) - 2], stop_early=True, intermediates_only=True, output_fmt="NLC"
    )
    return features[0]  # pyright: ignore[reportArgumentType, reportReturnType]


def _set_checkpointing(tower: nn.Module, enabled: bool) -> None:
    cast(VisionTransformer, tower).set_grad_checkpointing(enabled)


TIMM_VIT = VisionTower(build_timm_vit, penultimate_patches, is_unused, _set_checkpointing)
"""A timm ViT, selected by `timm_name`."""
