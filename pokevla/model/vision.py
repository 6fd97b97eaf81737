"""The two vision towers of Prismatic: DINOv2 with registers and SigLIP, patch features of the penultimate block.

Source: TRI-ML/prismatic-vlms, prismatic/models/backbones/vision/dinosiglip_vit.py (model sheet, 1.2 and 1.3).
"""

from __future__ import annotations

from collections.abc import Iterator

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

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
    for parameter in unused_parameters(tower):
        parameter.requires_grad_(False)
    return tower


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
