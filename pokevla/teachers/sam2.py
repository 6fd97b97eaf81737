"""The SAM 2 teacher: transformers' `Sam2VisionModel`. Its field `sam2` is the image embedding (C, G, G) of each view.

SAM 2's own mask decoder also reads two finer maps of the pyramid, which are not cached; PokeVLA's mask decoders read
the field `sam`. Constants are SAM 2's (github.com/facebookresearch/sam2, `sam2/utils/transforms.py`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Sam2VisionModel

from pokevla.model.presets import preset
from pokevla.model.seeding import reset_fan_in
from pokevla.teachers.teacher import TeacherDefinition
from pokevla.teachers.weights import load_part
from pokevla.weights.formats.sam2 import KIND, PUBLISHED_SIZES, STRIDE, Sam2Sizes, vision_config

FIELD = "sam2"
PIXEL_MEAN = (0.485, 0.456, 0.406)  # of 0..1 RGB
PIXEL_STD = (0.229, 0.224, 0.225)


class Sam2ImageEncoder(nn.Module):
    """SAM 2's image encoder, and the vector that it adds when there is no memory of earlier frames."""

    def __init__(self, sizes: Sam2Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.vision_encoder = Sam2VisionModel(vision_config(sizes))
        self.no_memory_embedding = nn.Parameter(torch.zeros(1, 1, sizes.pyramid_width))
        reset_fan_in(self)  # transformers' own 0.02 would make the features of small random teachers nearly constant

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised images (N, 3, S, S) -> image embeddings (N, C, G, G), of stride 16."""
        coarsest = self.vision_encoder(pixels).fpn_hidden_states[-1]
        return coarsest + self.no_memory_embedding.view(1, -1, 1, 1)


def sam2_sizes(name: str) -> Sam2Sizes:
    """Sizes of teacher preset `name`: tiny or mini (for the model presets of these names), or a published one."""
    if name in PUBLISHED_SIZES:
        return PUBLISHED_SIZES[name]
    segmentation, width = preset(name).segmentation, 8 if name == "tiny" else 16
    return Sam2Sizes(
        image_size=STRIDE * segmentation.grid,
        blocks_per_stage=(1, 1, 2, 1),
        embed_dim_per_stage=(width, 2 * width, 4 * width, 8 * width),
        window_size_per_stage=(4, 4, 6, 3),  # the third does not divide its grid, as in most published sizes
        global_blocks=(3,),
        position_grid=(3, 3),
        pyramid_width=segmentation.embed_dim,
    )


def preprocess_sam2(images: Tensor, size: int) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, size, size) float32: resized without keeping the aspect ratio, normalised."""
    pixels = images.permute(0, 3, 1, 2).float() / 255.0
    if pixels.shape[-2:] != (size, size):
        pixels = functional.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    mean = pixels.new_tensor(PIXEL_MEAN).view(3, 1, 1)
    std = pixels.new_tensor(PIXEL_STD).view(3, 1, 1)
    return (pixels - mean) / std


def encode_sam2(module: Sam2ImageEncoder, images: Tensor) -> Tensor:
    """(B, V, H, W, 3) uint8 -> (B, V, C, G, G) float32."""
    features = module(preprocess_sam2(images.flatten(0, 1), module.sizes.image_size))
    return features.unflatten(0, images.shape[:2]).to(torch.float32)


def load_sam2_weights(module: Sam2ImageEncoder, path: Path) -> None:
    """Load the image encoder of a folder of transformers, or what `pokevla model import sam2` has written.

    Raises:
        CheckpointError: there is none, or one of another size.
    """
    load_part(module, KIND, path)


def _fields(name: str) -> dict[str, tuple[int, ...]]:
    sizes = sam2_sizes(name)
    grid = sizes.image_size // STRIDE
    return {FIELD: (sizes.pyramid_width, grid, grid)}


def _preprocessing(name: str) -> str:
    size = sam2_sizes(name).image_size
    return f"{size} px bilinear antialias; mean {PIXEL_MEAN} std {PIXEL_STD} of 0..1"


SAM2 = TeacherDefinition(
    presets=("tiny", "mini", *PUBLISHED_SIZES),
    fields=_fields,
    preprocessing=_preprocessing,
    build=lambda name: Sam2ImageEncoder(sam2_sizes(name)),
    encode=lambda module, images: {FIELD: encode_sam2(module, images)},
    load_weights=load_sam2_weights,
)
