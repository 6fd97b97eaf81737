"""Prismatic's image encoder: DINOv2 with registers and SigLIP on the same image, concatenated along the channels."""

from __future__ import annotations

import torch
from torch import Tensor

from pokevla.model.precision import ExactBuffers
from pokevla.model.presets import PokeVLMConfig
from pokevla.model.seeding import seeded
from pokevla.model.vision_encoders.towers import VisionTower, build_tower, vision_tower

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)


class VisionBackbone(ExactBuffers):
    """Both towers on the same image, features concatenated along the channels, DINO first."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: PokeVLMConfig, seed: int = 0) -> None:
        super().__init__()
        with seeded(seed, "vision_backbone.dino_featurizer"):
            self.dino_featurizer = build_tower(config.dino)
        with seeded(seed, "vision_backbone.siglip_featurizer"):
            self.siglip_featurizer = build_tower(config.siglip)
        self.towers: dict[str, VisionTower] = {
            "dino_featurizer": vision_tower(config.dino),
            "siglip_featurizer": vision_tower(config.siglip),
        }
        """The kind of each encoder, by module name."""
        self.width = config.dino.width + config.siglip.width
        # Not persistent, because they are constants. (2, 1, 3, 1, 1)
        shape = (2, 1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor((IMAGENET_MEAN, SIGLIP_MEAN)).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor((IMAGENET_STD, SIGLIP_STD)).view(shape), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, S, S) in [0, 1] to fused patch features (N, P, dino width + siglip width)."""
        # Normalised in the images' own precision, then cast to the towers' (bf16 under DeepSpeed).
        normalised = ((images[None] - self.mean) / self.std).to(next(self.dino_featurizer.parameters()).dtype)
        return torch.cat([self._features(name, normalised[row]) for row, name in enumerate(self.towers)], dim=-1)

    def _features(self, name: str, images: Tensor) -> Tensor:
        """Patch features of one tower. A frozen one computes without gradients, so that activation checkpointing does
        not keep the inputs of its blocks."""
        tower = self.get_submodule(name)
        trains = images.requires_grad or any(parameter.requires_grad for parameter in tower.parameters())
        with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
            return self.towers[name].patch_features(tower, images)

    def set_checkpointing(self, enabled: bool) -> None:
        """Recompute each block's activations in the backward pass, or keep them."""
        for name, kind in self.towers.items():
            kind.set_checkpointing(self.get_submodule(name), enabled)
