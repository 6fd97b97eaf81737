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

from pokevla.errors import CheckpointError
from pokevla.model.presets import preset
from pokevla.teachers.teacher import TeacherDefinition
from pokevla.teachers.weights import load_strictly, read_state

FIELD = "sam"
PIXEL_MEAN = (123.675, 116.28, 103.53)  # of 0..255 RGB
PIXEL_STD = (58.395, 57.12, 57.375)

# transformers' default std is 1e-10, since it expects the weights to be overwritten; LayerNorm would amplify rounding
# noise. 0.02 is the usual value for ViTs.
_INITIALIZER_RANGE = 0.02

_OFFICIAL_TO_TRANSFORMERS = (
    ("image_encoder.", "vision_encoder."),
    (".patch_embed.proj.", ".patch_embed.projection."),
    (".blocks.", ".layers."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".neck.0.", ".neck.conv1."),
    (".neck.1.", ".neck.layer_norm1."),
    (".neck.2.", ".neck.conv2."),
    (".neck.3.", ".neck.layer_norm2."),
)


def sam_config(name: str) -> SamVisionConfig:
    """Return the configuration of teacher preset `name`: tiny or mini (for the model presets of these names), vit_b,
    vit_l or vit_h."""
    published = {
        "vit_b": (768, 12, 12, (2, 5, 8, 11)),
        "vit_l": (1024, 24, 16, (5, 11, 17, 23)),
        "vit_h": (1280, 32, 16, (7, 15, 23, 31)),
    }
    if name in published:
        width, depth, heads, global_blocks = published[name]
        return SamVisionConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            global_attn_indexes=list(global_blocks),
            initializer_range=_INITIALIZER_RANGE,
        )
    segmentation = preset(name).segmentation
    # tiny pads its windows (4 is not a multiple of 3), as the published sizes do (64 and 14); mini needs no padding.
    width, depth, heads, window = (16, 2, 2, 3) if name == "tiny" else (64, 2, 4, 8)
    return SamVisionConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        output_channels=segmentation.embed_dim,
        image_size=8 * segmentation.grid,
        patch_size=8,
        window_size=window,
        global_attn_indexes=[depth - 1],
        num_pos_feats=segmentation.embed_dim // 2,
        initializer_range=_INITIALIZER_RANGE,
    )


def load_sam_weights(model: SamVisionModel, path: Path) -> None:
    """Load a file in transformers' layout (`SamModel` or `SamVisionModel`) or in segment-anything's (`.pth`).

    Raises:
        CheckpointError: the file has no SAM image encoder, or one of another size.
    """
    state = read_state(path)
    if any(name.startswith("image_encoder.") for name in state):
        state = official_names(state)
    encoder = {name: value for name, value in state.items() if name.startswith("vision_encoder.")}
    if not encoder:
        raise CheckpointError(f"{path} holds no SAM image encoder.", "Give a SAM checkpoint for the teacher `sam`.")
    load_strictly(model, encoder, path)


def official_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the image encoder's tensors of a segment-anything state dict under transformers' names."""
    renamed = {}
    for name, value in state.items():
        if not name.startswith("image_encoder."):
            continue
        for old, new in _OFFICIAL_TO_TRANSFORMERS:
            name = name.replace(old, new, 1)
        renamed[name] = value
    return renamed


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
