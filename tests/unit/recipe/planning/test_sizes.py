"""The plan's plain numbers against the models themselves, built without storage."""

import dataclasses
from pathlib import Path

import pytest
import torch

from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import LIBERO
from pokevla.model.building import TrainableSpec, apply_trainable, parameter_report
from pokevla.model.presets import PokeVLAConfig, preset
from pokevla.model.vla import PokeVLA
from pokevla.recipe.planning.sizes import (
    PRESETS,
    SAM_SHAPES,
    VGGT_SHAPES,
    PresetSize,
    Stack,
    cache_record_bytes,
    preset_size,
)
from pokevla.recipe.sections import CacheConfig, ModelConfig, TeacherConfig
from tests.unit.embodiment.robots import TWO_HANDED

VLM_PARTS = {"dino_featurizer": "vision", "siglip_featurizer": "vision", "projector": "projector",
             "language_model": "language_model"}  # fmt: skip


def counted(name: str, embodiment: Embodiment, *, lora: bool) -> dict[str, tuple[int, int]]:
    with torch.device("meta"):
        model = PokeVLA(preset(name, embodiment))
        mode = "lora" if lora else "full"
        model = apply_trainable(model, TrainableSpec(mode, mode, mode, lora_rank=1))
    sums: dict[str, tuple[int, int]] = {}
    for part, total, trainable in parameter_report(model):
        key = "all" if part == "all" else VLM_PARTS.get(part, "own")
        before = sums.get(key, (0, 0))
        sums[key] = (before[0] + total, before[1] + trainable)
    return sums


@pytest.mark.parametrize("embodiment", [LIBERO, TWO_HANDED], ids=["libero", "two-handed"])
@pytest.mark.parametrize("name", ["tiny", "mini", "pocket"])
def test_parameters_are_those_of_the_model(name: str, embodiment: Embodiment) -> None:
    size = PRESETS[name]
    full, adapted = counted(name, embodiment, lora=False), counted(name, embodiment, lora=True)

    for part in ("vision", "projector", "language_model"):
        numbers = getattr(size, part)
        assert (numbers.total, numbers.used) == full[part]
        assert numbers.lora_per_rank == adapted[part][1]
    robot = size.per_robot(embodiment)
    assert (size.own_total + robot, size.own_trainable + robot) == full["own"]


def test_encoders_and_language_model_count_as_the_paper_says() -> None:
    pocket = PRESETS["pocket"]

    assert pocket.vision.total + pocket.language_model.total == 1_224_944_448


def expected_size(config: PokeVLAConfig, size: PresetSize) -> PresetSize:
    """`size` with all that stands in the preset itself taken from there."""
    language, head, vlm = config.vlm.language_model, config.action_head, config.vlm
    grid = config.segmentation.grid
    towers = [
        Stack(tower.depth - 1, tower.width, int(tower.width * tower.mlp_ratio), False)
        for tower in (vlm.dino, vlm.siglip)
    ]
    return PresetSize(
        vision=size.vision,
        projector=size.projector,
        language_model=size.language_model,
        own_total=size.own_total,
        own_trainable=size.own_trainable,
        embedding=language.vocab_size * language.hidden_size,
        patches=vlm.num_patches,
        towers=(towers[0], towers[1]),
        language_stack=Stack(language.num_layers, language.hidden_size, language.intermediate_size, True),
        head=Stack(head.num_layers, head.width, head.width, False),
        num_queries=head.num_queries,
        sam_shape=(config.segmentation.embed_dim, grid, grid),
        vggt_shape=(config.geometry.grid**2, config.geometry.target_dim),
    )


@pytest.mark.parametrize("name", ["tiny", "mini", "pocket"])
def test_shapes_are_those_of_the_preset(name: str) -> None:
    assert PRESETS[name] == expected_size(preset(name), PRESETS[name])


def test_width_of_the_geometry_projector_is_counted() -> None:
    size = preset_size(ModelConfig(preset="tiny", geometry_width=8))
    config = preset("tiny")
    with torch.device("meta"):
        model = PokeVLA(dataclasses.replace(config, geometry=dataclasses.replace(config.geometry, target_dim=8)))
    own = [row for row in parameter_report(model) if row[0] not in (*VLM_PARTS, "all")]
    robot = size.per_robot(LIBERO)
    assert size.own_total + robot == sum(row[1] for row in own)
    assert size.own_trainable + robot == sum(row[2] for row in own)
    assert size.vggt_shape == (4, 8)


def test_teachers_fit_the_models_that_read_them() -> None:
    assert SAM_SHAPES["vit_b"] == PRESETS["pocket"].sam_shape
    assert VGGT_SHAPES["vggt_1b"] == PRESETS["pocket"].vggt_shape


def test_record_of_the_published_teachers_takes_what_was_measured() -> None:
    sam, vggt = TeacherConfig(kind="sam", preset="vit_b"), TeacherConfig(kind="vggt", preset="vggt_1b")
    int8 = cache_record_bytes(CacheConfig(root=Path("c"), sam=sam, vggt=vggt), LIBERO.num_views)
    fp16 = cache_record_bytes(CacheConfig(root=Path("c"), sam=sam, vggt=vggt, sam_codec="fp16", vggt_codec="fp16"), 2)

    assert int8 / 2**20 == pytest.approx(3.06, abs=0.02)  # docs/cache.md
    assert fp16 / 2**20 == pytest.approx(6.0, abs=0.01)
