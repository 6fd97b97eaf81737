"""VGGT's aggregator, as `facebook/VGGT-1B` publishes it, without its heads: the teacher gives the aggregator's tokens.

Sizes follow from the shapes. Names: github.com/facebookresearch/vggt, `vggt/models`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pokevla.errors import CheckpointError, UsageError
from pokevla.files.texts import write_json
from pokevla.model.presets import config_of
from pokevla.weights.conversion.sources import Source, WeightFiles
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

KIND = "vggt"
_NOT_USED = "a head of VGGT; the teacher gives the aggregator's tokens"
NAMES = NameMap(
    rows=(Row("aggregator.{*}", "aggregator.{*}"),),
    ignored=tuple(Ignored(f"{head}_head.{{*}}", _NOT_USED) for head in ("camera", "depth", "point", "track")),
)
_DINO, _FRAMES, _GLOBAL = "aggregator.patch_embed.", "aggregator.frame_blocks.", "aggregator.global_blocks."


@dataclasses.dataclass(frozen=True)
class VggtSizes:
    """All sizes of an aggregator that shapes tell."""

    width: int
    num_heads: int
    grid: int  # patches along one side of the image that the position table is made for
    patch_size: int
    num_registers: int
    dino_depth: int
    depth: int


PUBLISHED_SIZES = {"vggt_1b": VggtSizes(1024, 16, 37, 14, 4, 24, 24)}
"""vggt/models/aggregator.py."""


def shapes(sizes: VggtSizes) -> dict[str, Shape]:
    """Names and shapes of the aggregator."""
    width, registers = sizes.width, sizes.num_registers
    named: dict[str, Shape] = {
        "aggregator.camera_token": (1, 2, 1, width),
        "aggregator.register_token": (1, 2, registers, width),
        f"{_DINO}cls_token": (1, 1, width),
        f"{_DINO}pos_embed": (1, 1 + sizes.grid**2, width),
        f"{_DINO}register_tokens": (1, registers, width),
        f"{_DINO}mask_token": (1, width),
        f"{_DINO}patch_embed.proj.weight": (width, 3, sizes.patch_size, sizes.patch_size),
        f"{_DINO}patch_embed.proj.bias": (width,),
    }
    for index in range(sizes.dino_depth):
        named |= _block(f"{_DINO}blocks.{index}.", width)
    named |= {f"{_DINO}norm.weight": (width,), f"{_DINO}norm.bias": (width,)}
    for blocks in (_FRAMES, _GLOBAL):
        for index in range(sizes.depth):
            named |= _block(f"{blocks}{index}.", width, head=width // sizes.num_heads)
    return named


def _block(prefix: str, width: int, head: int | None = None) -> dict[str, Shape]:
    """One transformer block; those of the aggregator normalise the queries and keys of each head."""
    normed = {} if head is None else {"q_norm": (head,), "k_norm": (head,)}
    layers: dict[str, Shape] = {
        "norm1": (width,),
        "attn.qkv": (3 * width, width),
        **{f"attn.{name}": shape for name, shape in normed.items()},
        "attn.proj": (width, width),
        "norm2": (width,),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }
    pairs = {f"{prefix}{name}.weight": shape for name, shape in layers.items()}
    pairs |= {f"{prefix}{name}.bias": shape[:1] for name, shape in layers.items()}
    return pairs | {f"{prefix}{scale}.gamma": (width,) for scale in ("ls1", "ls2")}


def sizes_of(source: Source) -> VggtSizes:
    """The sizes that the shapes in a file tell.

    Raises:
        CheckpointError: a tensor that tells a size is missing or of an impossible shape.
    """

    def shape(name: str, dimensions: int) -> Shape:
        found = source.tensors[name].shape if name in source.tensors else ()
        if len(found) != dimensions or 0 in found:
            given = f"{name} of shape {found}" if name in source.tensors else f"no {name}"
            raise CheckpointError(f"{source.place} holds {given}: this is not VGGT.", "Check the kind and the file.")
        return found

    def count(blocks: str) -> int:
        found = 0
        while f"{blocks}{found}.norm1.weight" in source.tensors:
            found += 1
        return found

    width, _, patch, _ = shape(f"{_DINO}patch_embed.proj.weight", 4)
    (head,) = shape(f"{_FRAMES}0.attn.q_norm.weight", 1)
    if head > width:
        raise CheckpointError(f"{source.place}: heads of {head} channels do not fit a width of {width}.")
    return VggtSizes(
        width=width,
        num_heads=width // head,
        grid=round((shape(f"{_DINO}pos_embed", 3)[1] - 1) ** 0.5),
        patch_size=patch,
        num_registers=shape("aggregator.register_token", 4)[2],
        dino_depth=count(f"{_DINO}blocks."),
        depth=count(_FRAMES),
    )


def _read_config(request: ImportRequest) -> VggtSizes:
    if request.preset is None:
        return sizes_of(request.source)
    if request.preset not in PUBLISHED_SIZES:
        raise UsageError(f"VGGT has no size {request.preset!r}.", f"Choose one of {', '.join(PUBLISHED_SIZES)}.")
    return PUBLISHED_SIZES[request.preset]


def _describe(_request: ImportRequest, sizes: VggtSizes, _folder: Path) -> dict[str, Any]:
    return {"kind": KIND, "model": dataclasses.asdict(sizes)}


def _parse_config(values: Any) -> VggtSizes:
    return config_of(VggtSizes, values)


def _write_others(folder: Path, model: OurModel) -> None:
    if model.published_config is not None:
        write_json(folder / "config.json", model.published_config)


VGGT = WeightFormat(
    title="VGGT's aggregator",
    kind=KIND,
    layouts={
        "vggt": Layout(
            title="vggt",
            files=(WeightFiles(("model.safetensors", "model.pt")),),
            names=NAMES,
            write_others=_write_others,
        )
    },
    read_config=_read_config,
    shapes=shapes,
    describe=_describe,
    parse_config=_parse_config,
)
