"""The SAM teacher: transformers' `SamVisionModel` at any size. Loads weights in either published layout.

Its field `sam` is the image embedding (C, G, G) of each view. Constants are segment-anything's
(github.com/facebookresearch/segment-anything, `segment_anything/build_sam.py`, `modeling/sam.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import SamVisionConfig, SamVisionModel

from pokevla.model.presets import preset
from pokevla.teachers.teacher import TeacherDefinition
from pokevla.teachers.weights import load_part
from pokevla.weights.formats.sam import KIND, OF_THE_DECODER, PUBLISHED_SIZES, SamSizes, vision_config

FIELD = "sam"
PIXEL_MEAN = (123.675, 116.28, 103.53)  # of 0..255 RGB
PIXEL_STD = (58.395, 57.12, 57.375)


def sam_config(name: str) -> SamVisionConfig:
    """Return the configuration of teacher preset `name`: tiny or mini (for the model presets of these names), vit_b,
    vit_l or vit_h."""
    if name in PUBLISHED_SIZES:
        return vision_config(PUBLISHED_SIZES[name])
    segmentation = preset(name).segmentation
    # tiny pads its windows (4 is not a multiple of 3), as the published sizes do (64 and 14); mini needs no padding.
    width, heads, window = (16, 2, 3) if name == "tiny" else (64, 4, 8)
    return vision_config(
        SamSizes(
            image_size=8 * segmentation.grid,
            patch_size=8,
            width=width,
            num_heads=heads,
            mlp_dim=4 * width,
            window_size=window,
            blocks=(False, True),
            embed_dim=segmentation.embed_dim,
        )
    )


def load_sam_weights(model: SamVisionModel, path: Path) -> None:
    """Load the image encoder of a `.pth` of segment-anything, of a file or folder of transformers (`SamModel` or
    `SamVisionModel`), or of what `pokevla model import sam` has written.

    Raises:
        CheckpointError: there is no SAM image encoder, or one of another size.
    """
    load_part(model, KIND, path, left_out=OF_THE_DECODER)


def preprocess_sam(images: Tensor, size: int) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, size, size) float32: longest side resized to `size`, normalised, zero-padded at the
    right and bottom."""
    pixels = images.permute(0, 3, 1, 2).float()
    height, width = pixels.shape[-2:]
    scale = size / max(height, width)
    target = (int(height * scale + 0.5), int(width * scale + 0.5))
    if target != (height, width):
        pixels = functional.interpolate(pixels, size=target, mode="bilinear", align_corners=False, antialias=True)
    mean = pixels.new_tensor(PIXEL_MEAN).view(3, 1, 1)
    std = pixels.new_tensor(PIXEL_STD).view(3, 1, 1)
    return functional.pad((pixels - mean) / std, (0, size - target[1], 0, size - target[0]))


def encode_sam(model: SamVisionModel, images: Tensor) -> Tensor:
    """(B, V, H, W, 3) uint8 -> (B, V, C, G, G) float32."""
    size = _image_size(model.config)
    pixels = preprocess_sam(images.flatten(0, 1), size)
    features = model(pixels).last_hidden_state
    return features.unflatten(0, images.shape[:2]).to(torch.float32)


def _fields(name: str) -> dict[str, tuple[int, ...]]:
    config = sam_config(name)
    grid = _image_size(config) // cast(int, config.patch_size)
    return {FIELD: (config.output_channels, grid, grid)}


def _preprocessing(name: str) -> str:
    size = _image_size(sam_config(name))
    return f"longest side {size} px bilinear antialias; mean {PIXEL_MEAN} std {PIXEL_STD} of 0..255; pad"


def _image_size(config: SamVisionConfig) -> int:
    return cast(int, config.image_size)


SAM = TeacherDefinition(
    presets=("tiny", "mini", "vit_b", "vit_l", "vit_h"),
    fields=_fields,
    preprocessing=_preprocessing,
    build=lambda name: SamVisionModel(sam_config(name)),
    encode=lambda model, images: {FIELD: encode_sam(model, images)},
    load_weights=load_sam_weights,
)
