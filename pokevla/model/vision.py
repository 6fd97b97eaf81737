"""The two vision towers of Prismatic: DINOv2 with registers and SigLIP, patch features of the penultimate block.

Source: TRI-ML/prismatic-vlms, prismatic/models/backbones/vision/dinosiglip_vit.py (model sheet, 1.2 and 1.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from pokevla.model.presets import PokeVLMConfig, VisionTowerConfig
from pokevla.model.seeding import seeded

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)


def build_tower(config: VisionTowerConfig) -> VisionTransformer:
    """Build one timm ViT of random weights. What the penultimate features never touch is frozen for good.

    The last block, the final norm and SigLIP's pooling head stay in place by name, so that published weights
    load strictly; they get no gradient, so that no engine waits for one.
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
    for parameter in unused_parameters(tower):
        parameter.requires_grad_(False)
    return tower


def sincos_position(grid: int, width: int) -> Tensor:
    """2-D sine-cosine code of a patch grid, row by row: (grid * grid, width), amplitude 1.

    Wavelengths run geometrically from 2 to 4 * grid patches, so that the slowest pair is nearly linear in the
    coordinate. From scratch, a position code of timm's 0.02 drowns in the patches' content; with this start a
    place can be read out from the first step (ours, for presets without published weights).
    """
    num_waves = width // 4
    exponent = torch.arange(num_waves) / max(num_waves - 1, 1)
    frequency = 2 * math.pi / (2.0 * (2.0 * grid) ** exponent)  # (W,) radians per patch
    angle = torch.arange(grid, dtype=torch.float32)[:, None] * frequency  # (G, W)
    wave = torch.cat([angle.sin(), angle.cos()], dim=-1)  # (G, 2W)
    rows, columns = wave[:, None].expand(-1, grid, -1), wave[None].expand(grid, -1, -1)
    code = torch.cat([columns, rows], dim=-1).reshape(grid * grid, 4 * num_waves)
    return functional.pad(code, (0, width - 4 * num_waves))


def unused_parameters(tower: VisionTransformer) -> Iterator[nn.Parameter]:
    """Yield the parameters that `patch_features` never touches."""
    for name, parameter in tower.named_parameters():
        if is_unused(name, len(tower.blocks)):
            yield parameter


def is_unused(name: str, depth: int) -> bool:
    """Whether a tower's parameter or module `name` lies behind the penultimate block of `depth` blocks."""
    return name.startswith((f"blocks.{depth - 1}.", "norm.", "fc_norm.", "attn_pool.", "head."))


def patch_features(tower: VisionTransformer, images: Tensor) -> Tensor:
    """Return the penultimate block's patch tokens, no final norm, no class or register tokens.

    Args:
        images: (N, 3, S, S), normalised for this tower.

    Returns:
        (N, P, width)
    """
    features = tower.forward_intermediates(
        images, indices=[len(tower.blocks) - 2], stop_early=True, intermediates_only=True, output_fmt="NLC"
    )
    return features[0]  # pyright: ignore[reportArgumentType, reportReturnType]


class VisionBackbone(nn.Module):
    """Both towers on the same image, features joined on the channel axis, DINO first."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: PokeVLMConfig, seed: int = 0) -> None:
        super().__init__()
        with seeded(seed, "vision_backbone.dino_featurizer"):
            self.dino_featurizer = build_tower(config.dino)
        with seeded(seed, "vision_backbone.siglip_featurizer"):
            self.siglip_featurizer = build_tower(config.siglip)
        self.width = config.dino.width + config.siglip.width
        # Not persistent: constants, not weights. (2, 1, 3, 1, 1)
        shape = (2, 1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor((IMAGENET_MEAN, SIGLIP_MEAN)).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor((IMAGENET_STD, SIGLIP_STD)).view(shape), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, S, S) in [0, 1] to fused patch features (N, P, dino width + siglip width)."""
        # Normalised in the images' own precision, then cast to the towers' (bf16 under DeepSpeed).
        normalised = ((images[None] - self.mean) / self.std).to(self.dino_featurizer.patch_embed.proj.weight.dtype)
        dino = patch_features(self.dino_featurizer, normalised[0])
        siglip = patch_features(self.siglip_featurizer, normalised[1])
        return torch.cat([dino, siglip], dim=-1)
