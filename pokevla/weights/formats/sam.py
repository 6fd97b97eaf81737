"""SAM as segment-anything publishes it (`.pth` of ViT-B, L and H) and as transformers stores it.

Our names are transformers', with the Fourier matrix once: a folder of ours is read like one of transformers. Sizes
follow from the shapes. Names: github.com/facebookresearch/segment-anything, `segment_anything/modeling`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import SamVisionConfig, SamVisionModel

from pokevla.errors import CheckpointError, UsageError
from pokevla.files.texts import write_json
from pokevla.model.presets import SegmentationConfig, config_of
from pokevla.model.segmentation import build_mask_decoder, build_prompt_encoder
from pokevla.weights.conversion.name_maps import ours_of
from pokevla.weights.conversion.sources import SAFETENSORS, Source, WeightFiles
from pokevla.weights.conversion.weight_format import (
    Duplicate,
    ImportRequest,
    Layout,
    NameMap,
    OurModel,
    Row,
    Shape,
    WeightFormat,
)

KIND = "sam"
MATRIX = "shared_image_embedding.positional_embedding"
"""Our name of the Fourier matrix, from which the position codes of image and prompts are made."""
OF_THE_ENCODER = ("image_encoder.{*}", "vision_encoder.{*}")
OF_THE_DECODER = ("prompt_encoder.{*}", "mask_decoder.{*}", MATRIX)
"""Published names of the image encoder, and of the prompt encoder and mask decoder, in either layout."""

_PROMPTS, _DECODER = "prompt_encoder.", "mask_decoder."
_MLPS = ("output_hypernetworks_mlps.{1}.", "iou_prediction_head.")
OFFICIAL_NAMES = NameMap(
    rows=(
        Row("image_encoder.patch_embed.proj.{*}", "vision_encoder.patch_embed.projection.{*}"),
        Row("image_encoder.pos_embed", "vision_encoder.pos_embed"),
        Row("image_encoder.blocks.{1}.norm{2}.{*}", "vision_encoder.layers.{1}.layer_norm{2}.{*}"),
        Row("image_encoder.blocks.{1}.{*}", "vision_encoder.layers.{1}.{*}"),
        Row("image_encoder.neck.0.{*}", "vision_encoder.neck.conv1.{*}"),
        Row("image_encoder.neck.1.{*}", "vision_encoder.neck.layer_norm1.{*}"),
        Row("image_encoder.neck.2.{*}", "vision_encoder.neck.conv2.{*}"),
        Row("image_encoder.neck.3.{*}", "vision_encoder.neck.layer_norm2.{*}"),
        Row(f"{_PROMPTS}pe_layer.positional_encoding_gaussian_matrix", MATRIX),
        Row(f"{_PROMPTS}point_embeddings.{{*}}", f"{_PROMPTS}point_embed.{{*}}"),
        Row(f"{_PROMPTS}mask_downscaling.0.{{*}}", f"{_PROMPTS}mask_embed.conv1.{{*}}"),
        Row(f"{_PROMPTS}mask_downscaling.1.{{*}}", f"{_PROMPTS}mask_embed.layer_norm1.{{*}}"),
        Row(f"{_PROMPTS}mask_downscaling.3.{{*}}", f"{_PROMPTS}mask_embed.conv2.{{*}}"),
        Row(f"{_PROMPTS}mask_downscaling.4.{{*}}", f"{_PROMPTS}mask_embed.layer_norm2.{{*}}"),
        Row(f"{_PROMPTS}mask_downscaling.6.{{*}}", f"{_PROMPTS}mask_embed.conv3.{{*}}"),
        Row(f"{_PROMPTS}{{*}}", f"{_PROMPTS}{{*}}"),
        Row(
            f"{_DECODER}transformer.layers.{{1}}.norm{{2}}.{{*}}",
            f"{_DECODER}transformer.layers.{{1}}.layer_norm{{2}}.{{*}}",
        ),
        Row(f"{_DECODER}transformer.norm_final_attn.{{*}}", f"{_DECODER}transformer.layer_norm_final_attn.{{*}}"),
        Row(f"{_DECODER}output_upscaling.0.{{*}}", f"{_DECODER}upscale_conv1.{{*}}"),
        Row(f"{_DECODER}output_upscaling.1.{{*}}", f"{_DECODER}upscale_layer_norm.{{*}}"),
        Row(f"{_DECODER}output_upscaling.3.{{*}}", f"{_DECODER}upscale_conv2.{{*}}"),
        *(Row(f"{_DECODER}{mlp}layers.0.{{*}}", f"{_DECODER}{mlp}proj_in.{{*}}") for mlp in _MLPS),
        *(Row(f"{_DECODER}{mlp}layers.1.{{*}}", f"{_DECODER}{mlp}layers.0.{{*}}") for mlp in _MLPS),
        *(Row(f"{_DECODER}{mlp}layers.2.{{*}}", f"{_DECODER}{mlp}proj_out.{{*}}") for mlp in _MLPS),
        Row(f"{_DECODER}{{*}}", f"{_DECODER}{{*}}"),
    ),
)
HF_NAMES = NameMap(
    rows=tuple(Row(name, name) for name in ("vision_encoder.{*}", MATRIX, "prompt_encoder.{*}", "mask_decoder.{*}")),
    duplicates=(Duplicate("prompt_encoder.shared_embedding.positional_embedding", of=MATRIX, written=True),),
)


@dataclasses.dataclass(frozen=True)
class SamSizes:
    """All sizes of a SAM that shapes tell. Heads of the mask decoder are 8 in all published sizes."""

    image_size: int
    patch_size: int
    width: int
    num_heads: int
    mlp_dim: int
    window_size: int  # of the blocks that are not global, in patches
    blocks: tuple[bool, ...]  # for each block of the image encoder, whether its attention is global
    embed_dim: int
    decoder_depth: int = 2
    decoder_mlp_dim: int = 2048
    mask_input_channels: int = 16
    num_multimask_outputs: int = 3


def _published(width: int, num_heads: int, depth: int, global_blocks: tuple[int, ...]) -> SamSizes:
    blocks = tuple(index in global_blocks for index in range(depth))
    return SamSizes(1024, 16, width, num_heads, 4 * width, 14, blocks, 256)


PUBLISHED_SIZES = {
    "vit_b": _published(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": _published(1024, 16, 24, (5, 11, 17, 23)),
    "vit_h": _published(1280, 16, 32, (7, 15, 23, 31)),
}
"""segment_anything/build_sam.py."""


def vision_config(sizes: SamSizes, initializer_range: float = 0.02) -> SamVisionConfig:
    """Configuration of transformers' image encoder.

    transformers' default `initializer_range` is 1e-10, since it expects the weights to be overwritten; LayerNorm would
    amplify rounding noise. 0.02 is the usual value for ViTs.
    """
    return SamVisionConfig(
        hidden_size=sizes.width,
        num_hidden_layers=len(sizes.blocks),
        num_attention_heads=sizes.num_heads,
        mlp_dim=sizes.mlp_dim,
        output_channels=sizes.embed_dim,
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        window_size=sizes.window_size,
        global_attn_indexes=[index for index, is_global in enumerate(sizes.blocks) if is_global],
        num_pos_feats=sizes.embed_dim // 2,
        initializer_range=initializer_range,
    )


def decoder_shapes(config: SegmentationConfig) -> dict[str, Shape]:
    """Names and shapes of one prompt encoder and mask decoder. Allocates nothing."""
    with torch.device("meta"):
        prompts, decoder = build_prompt_encoder(config).state_dict(), build_mask_decoder(config).state_dict()
    named = {_PROMPTS + name: value for name, value in prompts.items()}
    named |= {_DECODER + name: value for name, value in decoder.items()}
    return {our_name(name): tuple(value.shape) for name, value in named.items()}


def our_name(name: str) -> str:
    """The name in this format of a tensor of PokeVLA's prompt encoders and mask decoders."""
    return MATRIX if name == "prompt_encoder.shared_embedding.positional_embedding" else name


def _shapes(sizes: SamSizes) -> dict[str, Shape]:
    with torch.device("meta"):
        encoder = SamVisionModel(vision_config(sizes)).state_dict()
    decoders = SegmentationConfig(
        embed_dim=sizes.embed_dim,
        grid=sizes.image_size // sizes.patch_size,
        decoder_depth=sizes.decoder_depth,
        num_heads=1,  # does not change shapes
        mlp_dim=sizes.decoder_mlp_dim,
        mask_input_channels=sizes.mask_input_channels,
        num_multimask_outputs=sizes.num_multimask_outputs,
    )
    return {name: tuple(value.shape) for name, value in encoder.items()} | decoder_shapes(decoders)


def _read_config(request: ImportRequest) -> SamSizes:
    if request.preset is None:
        return sizes_of(request.source)
    if request.preset not in PUBLISHED_SIZES:
        raise UsageError(f"SAM has no size {request.preset!r}.", f"Choose one of {', '.join(PUBLISHED_SIZES)}.")
    return PUBLISHED_SIZES[request.preset]


def sizes_of(source: Source) -> SamSizes:
    """The sizes that the shapes in a file tell.

    Raises:
        CheckpointError: a tensor that tells a size is missing or of an impossible shape.
    """
    names = SAM.layouts[source.layout].names
    shapes = {ours: tensor.shape for name, tensor in source.tensors.items() for ours in ours_of(name, names) or ()}

    def shape(name: str, dimensions: int) -> Shape:
        found = shapes.get(name, ())
        if len(found) != dimensions or 0 in found:
            given = f"{name} of shape {found}" if name in shapes else f"no {name}"
            raise CheckpointError(f"{source.place} holds {given}: this is not SAM.", "Check the kind and the file.")
        return found

    width, _, patch, _ = shape("vision_encoder.patch_embed.projection.weight", 4)
    grid = shape("vision_encoder.pos_embed", 4)[1]
    depth = _count(shapes, "vision_encoder.layers.{}.attn.rel_pos_h")
    relative = [shape(f"vision_encoder.layers.{index}.attn.rel_pos_h", 2) for index in range(depth)]
    head = shape("vision_encoder.layers.0.attn.rel_pos_h", 2)[1]
    sides = [(length + 1) // 2 for length, _ in relative]  # positions -(side - 1) ... side - 1
    if head > width:
        raise CheckpointError(f"{source.place}: heads of {head} channels do not fit a width of {width}.")
    return SamSizes(
        image_size=grid * patch,
        patch_size=patch,
        width=width,
        num_heads=width // head,
        mlp_dim=shape("vision_encoder.layers.0.mlp.lin1.weight", 2)[0],
        window_size=next((side for side in sides if side != grid), grid),
        blocks=tuple(side == grid for side in sides),
        embed_dim=shape("vision_encoder.neck.conv1.weight", 4)[0],
        decoder_depth=_count(shapes, "mask_decoder.transformer.layers.{}.mlp.lin1.weight"),
        decoder_mlp_dim=shape("mask_decoder.transformer.layers.0.mlp.lin1.weight", 2)[0],
        mask_input_channels=shape("prompt_encoder.mask_embed.conv2.weight", 4)[0],
        num_multimask_outputs=shape("mask_decoder.mask_tokens.weight", 2)[0] - 1,
    )


def _count(shapes: Mapping[str, Shape], pattern: str) -> int:
    """How many layers there are, counted from 0 on."""
    count = 0
    while pattern.format(count) in shapes:
        count += 1
    return count


def _describe(request: ImportRequest, sizes: SamSizes, _folder: Path) -> dict[str, Any]:
    return {"kind": KIND, "model": dataclasses.asdict(sizes)}


def _parse_config(values: Any) -> SamSizes:
    sizes = config_of(SamSizes, values)
    return dataclasses.replace(sizes, blocks=tuple(sizes.blocks))


_HF_VISION = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_dim", "output_channels", "image_size", "patch_size",
    "window_size", "global_attn_indexes", "num_pos_feats", "initializer_range",
)  # fmt: skip


def _write_hf_config(folder: Path, model: OurModel) -> None:
    """config.json of transformers: that of the source, or one for these sizes."""
    published = model.published_config
    sizes: SamSizes = model.config
    vision = vision_config(sizes)
    write_json(
        folder / "config.json",
        published
        or {
            "architectures": ["SamModel"],
            "model_type": "sam",
            "vision_config": {name: getattr(vision, name) for name in _HF_VISION},
            "prompt_encoder_config": {
                "hidden_size": sizes.embed_dim,
                "image_size": sizes.image_size,
                "patch_size": sizes.patch_size,
                "mask_input_channels": sizes.mask_input_channels,
            },
            "mask_decoder_config": {
                "hidden_size": sizes.embed_dim,
                "mlp_dim": sizes.decoder_mlp_dim,
                "num_hidden_layers": sizes.decoder_depth,
                "num_multimask_outputs": sizes.num_multimask_outputs,
                "iou_head_hidden_dim": sizes.embed_dim,
            },
        },
    )


SAM = WeightFormat(
    title="SAM",
    kind=KIND,
    layouts={
        "segment-anything": Layout(
            title="segment-anything",
            files=(WeightFiles(("sam.pth", "sam_vit_*.pth")),),
            names=OFFICIAL_NAMES,
            other_files=(),
        ),
        "hf": Layout(
            title="transformers", files=(WeightFiles(SAFETENSORS),), names=HF_NAMES, write_others=_write_hf_config
        ),
    },
    read_config=_read_config,
    shapes=_shapes,
    describe=_describe,
    parse_config=_parse_config,
)
