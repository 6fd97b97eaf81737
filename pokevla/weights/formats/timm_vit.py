"""Vision towers as timm publishes them: DINOv2 with registers and SigLIP, one file each.

A published DINOv2 has position embeddings for 518 px. They are kept as they are. Where a PokeVLM is assembled from
towers, they are resampled to its image size, as timm does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pokevla.errors import CheckpointError
from pokevla.files.texts import write_json
from pokevla.model.presets import PRESET_NAMES, VisionTowerConfig, config_of, preset
from pokevla.model.vision_encoders.towers import build_timm_vit
from pokevla.weights.conversion.sources import SAFETENSORS, Source, WeightFiles
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

KIND = "timm"
POSITIONS = "pos_embed"
"""(1, grid * grid, width): the only tensor whose shape depends on the image size."""
NAMES = NameMap(
    rows=(Row("{*}", "{*}"),),
    ignored=(Ignored("mask_token", "used only by DINOv2's own training"),),
)


def shapes(config: VisionTowerConfig) -> dict[str, Shape]:
    """Names and shapes of a tower."""
    with torch.device("meta"):
        tower = build_timm_vit(config)
    return {name: tuple(tensor.shape) for name, tensor in tower.state_dict().items()}


def tower_of(given: Mapping[str, Shape], towers: list[VisionTowerConfig], place: object) -> VisionTowerConfig:
    """The tower that fits these names and shapes best, with the image size that the position embeddings tell.

    Shapes do not tell the number of heads, so the sizes are those of a preset. A later comparison of all shapes names
    whatever differs.

    Raises:
        CheckpointError: the position embeddings are not those of a square image.
    """
    expected = [shapes(tower) for tower in towers]
    scores = [sum(given.get(name) == shape for name, shape in one.items()) - len({*given} - {*one}) for one in expected]
    tower = towers[max(range(len(towers)), key=scores.__getitem__)]
    positions = given.get(POSITIONS, (1, tower.grid**2, tower.width))
    grid = math.isqrt(positions[1]) if len(positions) == 3 else 0
    if len(positions) != 3 or grid * grid != positions[1] or grid == 0:
        raise CheckpointError(f"{place}: {POSITIONS} has shape {positions}, which is no square grid of patches.")
    return dataclasses.replace(tower, image_size=grid * tower.patch_size)


def known_towers(name: str | None) -> list[VisionTowerConfig]:
    """Both towers of a preset, or of all presets, the largest first."""
    names = reversed(PRESET_NAMES) if name is None else [name]
    return [tower for one in names for tower in (preset(one).vlm.dino, preset(one).vlm.siglip)]


def shapes_of(source: Source, prefix: str = "") -> dict[str, Shape]:
    """Shapes of the tensors of a source whose names begin with a prefix, by the rest of the name."""
    return {
        name.removeprefix(prefix): tensor.shape for name, tensor in source.tensors.items() if name.startswith(prefix)
    }


def _read_config(request: ImportRequest) -> VisionTowerConfig:
    given = shapes_of(request.source)
    given.pop("mask_token", None)
    return tower_of(given, known_towers(request.preset), request.source.place)


def _describe(_request: ImportRequest, config: VisionTowerConfig, _folder: Path) -> dict[str, Any]:
    return {"kind": KIND, "model": dataclasses.asdict(config)}


def _parse_config(values: Any) -> VisionTowerConfig:
    return config_of(VisionTowerConfig, values)


def _write_others(folder: Path, model: OurModel) -> None:
    published = model.published_config
    if published is None:
        tower: VisionTowerConfig = model.config
        published = {"architecture": tower.timm_name.partition(".")[0], "num_classes": 0, "num_features": tower.width}
    write_json(folder / "config.json", published)


TIMM = WeightFormat(
    title="a timm vision tower",
    kind=KIND,
    layouts={"timm": Layout(title="timm", files=(WeightFiles(SAFETENSORS),), names=NAMES, write_others=_write_others)},
    read_config=_read_config,
    shapes=shapes,
    describe=_describe,
    parse_config=_parse_config,
)
