"""The plan's plain numbers against the models themselves, built without storage."""

from pathlib import Path

import pytest
import torch

from pokevla.embodiment.libero import LIBERO
from pokevla.model.presets import PokeVLAConfig, VisionTowerConfig, preset
from pokevla.parts import TEACHERS, get_part
from pokevla.recipe.planning.sizes import (
    PRESETS,
    SAM_SHAPES,
    TEACHER_PARAMETERS,
    VGGT_SHAPES,
    DecoderSize,
    HeadSize,
    LanguageSize,
    PresetSize,
    TowerSize,
    cache_record_bytes,
    preset_size,
)
from pokevla.recipe.sections import CacheConfig, ModelConfig, TeacherConfig


def tower(config: VisionTowerConfig, prefix_tokens: int, *, pools: bool) -> TowerSize:
    return TowerSize(
        layers=config.depth,
        width=config.width,
        heads=config.num_heads,
        mlp_width=int(config.width * config.mlp_ratio),
        image_size=config.image_size,
        prefix_tokens=prefix_tokens,
        layer_scale=config.layer_scale is not None,
        pools=pools,
        patch=config.patch_size,
    )


def expected_size(config: PokeVLAConfig) -> PresetSize:
    """The numbers of a preset, from the configuration that models are built from."""
    language, head, vlm, masks = config.vlm.language_model, config.action_head, config.vlm, config.segmentation
    return PresetSize(
        dino=tower(vlm.dino, 1 + vlm.dino.num_registers, pools=False),
        siglip=tower(vlm.siglip, 0, pools=True),
        language_stack=LanguageSize(
            language.num_layers,
            language.hidden_size,
            language.num_heads,
            language.num_kv_heads,
            language.intermediate_size,
            language.vocab_size,
        ),
        decoder=DecoderSize(
            masks.embed_dim,
            masks.grid,
            masks.num_heads,
            masks.mlp_dim,
            masks.decoder_depth,
            masks.num_multimask_outputs + 1,
            masks.mask_input_channels,
        ),
        head=HeadSize(head.num_layers, head.width, head.num_heads),
        num_queries=head.num_queries,
        vggt_shape=(config.geometry.grid**2, config.geometry.target_dim),
    )


@pytest.mark.parametrize("name", ["tiny", "mini", "pocket"])
def test_shapes_are_those_of_the_preset(name: str) -> None:
    assert PRESETS[name] == expected_size(preset(name))


def test_width_of_the_geometry_projector_is_the_recipe_s() -> None:
    assert preset_size(ModelConfig(preset="tiny", geometry_width=8)).vggt_shape == (4, 8)


def test_teachers_fit_the_models_that_read_them() -> None:
    assert SAM_SHAPES["vit_b"] == PRESETS["pocket"].sam_shape
    assert VGGT_SHAPES["vggt_1b"] == PRESETS["pocket"].vggt_shape


@pytest.mark.parametrize(("kind", "name"), TEACHER_PARAMETERS)
def test_published_teachers_count_as_published(kind: str, name: str) -> None:
    with torch.device("meta"):
        encoder = get_part("teacher", kind, TEACHERS).build(name)

    assert sum(parameter.numel() for parameter in encoder.parameters()) == TEACHER_PARAMETERS[kind, name]


def test_record_of_the_published_teachers_takes_what_was_measured() -> None:
    sam, vggt = TeacherConfig(kind="sam", preset="vit_b"), TeacherConfig(kind="vggt", preset="vggt_1b")
    int8 = cache_record_bytes(CacheConfig(root=Path("c"), sam=sam, vggt=vggt), LIBERO.num_views)
    fp16 = cache_record_bytes(CacheConfig(root=Path("c"), sam=sam, vggt=vggt, sam_codec="fp16", vggt_codec="fp16"), 2)

    assert int8 / 2**20 == pytest.approx(3.06, abs=0.02)  # docs/cache.md
    assert fp16 / 2**20 == pytest.approx(6.0, abs=0.01)
