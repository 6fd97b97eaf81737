"""SAM 2's image encoder (Hiera and its feature pyramid) from folders that transformers has written.

Prompt encoder, mask decoder and memory are left out: the teacher gives the image embedding only. Our names are
transformers'. Sizes are in config.json; shapes do not tell windows and global blocks.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from transformers import Sam2HieraDetConfig, Sam2VisionConfig, Sam2VisionModel

from pokevla.errors import CheckpointError, UsageError
from pokevla.files.records import as_type
from pokevla.files.texts import write_json
from pokevla.model.presets import config_of
from pokevla.weights.conversion.sources import SAFETENSORS, WeightFiles
from pokevla.weights.conversion.weight_format import (
    Ignored,
    ImportRequest,
    Layout,
    NameMap,
    OurModel,
    Row,
    Shape,
    WeightFormat,
)

KIND = "sam2"
ENCODER = "vision_encoder."
NO_MEMORY = "no_memory_embedding"
"""Vector that SAM 2 adds to the image embedding of an image that has no earlier frames, (1, 1, C)."""
_LEVELS = 3  # of the pyramid; the last one, of stride 16, is the image embedding
STRIDE = 16
_DECODES = "decodes masks; the teacher gives the image embedding"
_REMEMBERS = "SAM 2's memory of earlier frames, which a single image does not have"
NAMES = NameMap(
    rows=(Row(f"{ENCODER}{{*}}", f"{ENCODER}{{*}}"), Row(NO_MEMORY, NO_MEMORY)),
    ignored=(
        *(Ignored(f"{part}.{{*}}", _DECODES) for part in ("prompt_encoder", "mask_decoder", "shared_image_embedding")),
        *(
            Ignored(f"{part}.{{*}}", _REMEMBERS)
            for part in (
                "memory_attention",
                "memory_encoder",
                "mask_downsample",
                "object_pointer_proj",
                "temporal_positional_encoding_projection_layer",
            )
        ),
        *(
            Ignored(name, _REMEMBERS)
            for name in (
                "memory_temporal_positional_encoding",
                "no_memory_positional_encoding",
                "no_object_pointer",
                "occlusion_spatial_embedding_parameter",
            )
        ),
    ),
)


@dataclasses.dataclass(frozen=True)
class Sam2Sizes:
    """Sizes of an image encoder. Defaults are those of transformers, SAM 2.1 Tiny."""

    image_size: int = 1024
    blocks_per_stage: tuple[int, ...] = (1, 2, 7, 2)
    embed_dim_per_stage: tuple[int, ...] = (96, 192, 384, 768)
    heads_per_stage: tuple[int, ...] = (1, 2, 4, 8)
    window_size_per_stage: tuple[int, ...] = (8, 4, 14, 7)
    global_blocks: tuple[int, ...] = (5, 7, 9)
    position_grid: tuple[int, ...] = (7, 7)
    pyramid_width: int = 256


PUBLISHED_SIZES = {
    "hiera_tiny": Sam2Sizes(),
    "hiera_small": Sam2Sizes(blocks_per_stage=(1, 2, 11, 2), global_blocks=(7, 10, 13)),
    "hiera_base_plus": Sam2Sizes(
        blocks_per_stage=(2, 3, 16, 3),
        embed_dim_per_stage=(112, 224, 448, 896),
        heads_per_stage=(2, 4, 8, 16),
        global_blocks=(12, 16, 20),
        position_grid=(14, 14),
    ),
    "hiera_large": Sam2Sizes(
        blocks_per_stage=(2, 6, 36, 4),
        embed_dim_per_stage=(144, 288, 576, 1152),
        heads_per_stage=(2, 4, 8, 16),
        window_size_per_stage=(8, 4, 16, 8),
        global_blocks=(23, 33, 43),
    ),
}
"""github.com/facebookresearch/sam2, sam2/configs/sam2.1."""


def vision_config(sizes: Sam2Sizes) -> Sam2VisionConfig:
    """Configuration of transformers' image encoder."""
    backbone = Sam2HieraDetConfig(
        hidden_size=sizes.embed_dim_per_stage[0],
        num_attention_heads=sizes.heads_per_stage[0],
        image_size=[sizes.image_size] * 2,
        window_positional_embedding_background_size=list(sizes.position_grid),
        blocks_per_stage=list(sizes.blocks_per_stage),
        embed_dim_per_stage=list(sizes.embed_dim_per_stage),
        num_attention_heads_per_stage=list(sizes.heads_per_stage),
        window_size_per_stage=list(sizes.window_size_per_stage),
        global_attention_blocks=list(sizes.global_blocks),
    )
    return Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=list(reversed(sizes.embed_dim_per_stage)),
        backbone_feature_sizes=[[sizes.image_size // stride] * 2 for stride in (4, 8, STRIDE)],
        fpn_hidden_size=sizes.pyramid_width,
        num_feature_levels=_LEVELS,
    )


@dataclasses.dataclass(frozen=True)
class _HfBackbone:
    """The fields of `vision_config.backbone_config` that change what is computed, with transformers' defaults."""

    image_size: list[int] = dataclasses.field(default_factory=lambda: [1024, 1024])
    blocks_per_stage: list[int] = dataclasses.field(default_factory=lambda: [1, 2, 7, 2])
    embed_dim_per_stage: list[int] = dataclasses.field(default_factory=lambda: [96, 192, 384, 768])
    num_attention_heads_per_stage: list[int] = dataclasses.field(default_factory=lambda: [1, 2, 4, 8])
    window_size_per_stage: list[int] = dataclasses.field(default_factory=lambda: [8, 4, 14, 7])
    global_attention_blocks: list[int] = dataclasses.field(default_factory=lambda: [5, 7, 9])
    window_positional_embedding_background_size: list[int] = dataclasses.field(default_factory=lambda: [7, 7])
    patch_kernel_size: list[int] = dataclasses.field(default_factory=lambda: [7, 7])
    patch_stride: list[int] = dataclasses.field(default_factory=lambda: [4, 4])
    patch_padding: list[int] = dataclasses.field(default_factory=lambda: [3, 3])
    query_stride: list[int] = dataclasses.field(default_factory=lambda: [2, 2])
    num_query_pool_stages: int = 3
    mlp_ratio: float = 4.0
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6


@dataclasses.dataclass(frozen=True)
class _HfVision:
    """The fields of `vision_config`."""

    backbone_config: _HfBackbone = dataclasses.field(default_factory=_HfBackbone)
    fpn_hidden_size: int = 256
    fpn_kernel_size: int = 1
    fpn_stride: int = 1
    fpn_padding: int = 0
    fpn_top_down_levels: list[int] = dataclasses.field(default_factory=lambda: [2, 3])
    num_feature_levels: int = _LEVELS


_FIXED = ("patch_kernel_size", "patch_stride", "patch_padding", "query_stride", "num_query_pool_stages", "mlp_ratio",
          "hidden_act", "layer_norm_eps")  # fmt: skip
_FIXED_PYRAMID = ("fpn_kernel_size", "fpn_stride", "fpn_padding", "fpn_top_down_levels", "num_feature_levels")


def _read_config(request: ImportRequest) -> Sam2Sizes:
    if request.preset is not None:
        if request.preset not in PUBLISHED_SIZES:
            raise UsageError(f"SAM 2 has no size {request.preset!r}.", f"Choose one of {', '.join(PUBLISHED_SIZES)}.")
        return PUBLISHED_SIZES[request.preset]
    place = request.source.folder / "config.json"
    content = request.source.read_config()
    if "model" in content:  # a folder of ours
        return SAM2.config_in(content)
    config = as_type(content.get("vision_config", {}), _HfVision, place, kind=CheckpointError)
    backbone = config.backbone_config
    usual = _HfVision()
    for given, expected, names in ((backbone, usual.backbone_config, _FIXED), (config, usual, _FIXED_PYRAMID)):
        if other := [name for name in names if getattr(given, name) != getattr(expected, name)]:
            raise CheckpointError(
                f"{place}: {other[0]} is {getattr(given, other[0])}, only {getattr(expected, other[0])} is supported."
            )
    if len(set(backbone.image_size)) != 1:
        raise CheckpointError(f"{place}: images of {backbone.image_size} are not square.")
    return Sam2Sizes(
        image_size=backbone.image_size[0],
        blocks_per_stage=tuple(backbone.blocks_per_stage),
        embed_dim_per_stage=tuple(backbone.embed_dim_per_stage),
        heads_per_stage=tuple(backbone.num_attention_heads_per_stage),
        window_size_per_stage=tuple(backbone.window_size_per_stage),
        global_blocks=tuple(backbone.global_attention_blocks),
        position_grid=tuple(backbone.window_positional_embedding_background_size),
        pyramid_width=config.fpn_hidden_size,
    )


def _shapes(sizes: Sam2Sizes) -> dict[str, Shape]:
    stages = (sizes.blocks_per_stage, sizes.embed_dim_per_stage, sizes.heads_per_stage, sizes.window_size_per_stage)
    if {len(stage) for stage in stages} != {4} or any(number < 1 for stage in stages for number in stage):
        raise CheckpointError(f"These are not the sizes of a SAM 2 with four stages: {dataclasses.asdict(sizes)}.")
    with torch.device("meta"):
        state = Sam2VisionModel(vision_config(sizes)).state_dict()
    shapes: dict[str, Shape] = {ENCODER + name: tuple(value.shape) for name, value in state.items()}
    return shapes | {NO_MEMORY: (1, 1, sizes.pyramid_width)}


def _describe(_request: ImportRequest, sizes: Sam2Sizes, _folder: Path) -> dict[str, Any]:
    return {"kind": KIND, "model": dataclasses.asdict(sizes)}


def _parse_config(values: Any) -> Sam2Sizes:
    sizes = config_of(Sam2Sizes, values)
    lists = {name: tuple(value) for name, value in dataclasses.asdict(sizes).items() if isinstance(value, list)}
    return dataclasses.replace(sizes, **lists)


def _write_others(folder: Path, model: OurModel) -> None:
    published = model.published_config
    vision = vision_config(model.config)
    backbone = vision.backbone_config
    fields = [field.name for field in dataclasses.fields(_HfBackbone)]
    write_json(
        folder / "config.json",
        published
        or {
            "architectures": ["Sam2Model"],
            "model_type": "sam2",
            "vision_config": {
                "backbone_config": {
                    "model_type": "sam2_hiera_det_model",
                    "hidden_size": model.config.embed_dim_per_stage[0],
                    "num_attention_heads": model.config.heads_per_stage[0],
                    **{name: getattr(backbone, name) for name in fields},
                },
                "backbone_channel_list": vision.backbone_channel_list,
                "backbone_feature_sizes": vision.backbone_feature_sizes,
                "fpn_hidden_size": vision.fpn_hidden_size,
            },
        },
    )


SAM2 = WeightFormat(
    title="SAM 2's image encoder",
    kind=KIND,
    layouts={
        "hf": Layout(title="transformers", files=(WeightFiles(SAFETENSORS),), names=NAMES, write_others=_write_others)
    },
    read_config=_read_config,
    shapes=_shapes,
    describe=_describe,
    parse_config=_parse_config,
)
