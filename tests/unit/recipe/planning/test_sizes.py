"""The plan's plain numbers against the models themselves, built without storage."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pokevla.embodiment.libero import LIBERO
from pokevla.features.codec import codec_for
from pokevla.features.layout import FieldLayout
from pokevla.model.presets import PokeVLAConfig, VisionTowerConfig, preset
from pokevla.parts import TEACHERS, get_part
from pokevla.recipe.planning.sizes import (
    PRESETS,
    SAM_SHAPES,
    TEACHER_FIELDS,
    TEACHER_FLOPS,
    TEACHER_PARAMETERS,
    VGGT_SHAPES,
    DecoderSize,
    HeadSize,
    LanguageSize,
    PresetSize,
    TowerSize,
    cache_record_bytes,
    field_bytes,
    preset_size,
    teacher_flops,
)
from pokevla.recipe.sections import CacheConfig, ModelConfig, TeacherConfig, TokenCodec


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
    assert counted_by_torch(encoder, kind, views=2) == teacher_flops(TeacherConfig(kind=kind, preset=name), 2)


def counted_by_torch(encoder: torch.nn.Module, kind: str, views: int) -> int:
    images = torch.zeros(1, views, 32, 32, 3, dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        get_part("teacher", kind, TEACHERS).encode(encoder, images)
    return counter.get_total_flops()


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize(("kind", "name"), [key for key in TEACHER_FLOPS if key[1] in ("tiny", "mini")])
def test_operations_of_a_teacher_grow_with_the_views_as_torch_counts(kind: str, name: str, views: int) -> None:
    with torch.device("meta"):
        encoder = get_part("teacher", kind, TEACHERS).build(name)

    assert counted_by_torch(encoder, kind, views) == teacher_flops(TeacherConfig(kind=kind, preset=name), views)


def test_every_teacher_of_ours_has_its_operations_counted() -> None:
    for kind, presets in TEACHER_FIELDS.items():
        for name in presets:
            assert teacher_flops(TeacherConfig(kind=kind, preset=name), 1), (kind, name)
    assert teacher_flops(TeacherConfig(kind="toy", preset="only"), 1) is None


@pytest.mark.parametrize(("shape", "codec"), [
    (shape, codec) for shape in ((3, 9, 9), (256, 64, 64), (4, 24), (4, 70), (256, 2048))
    for codec in ("int8", "int4", "fp16") if codec != "int4" or len(shape) == 2
])  # fmt: skip
def test_bytes_of_a_field_are_those_of_its_layout(shape: tuple[int, ...], codec: TokenCodec) -> None:
    field = FieldLayout("x", "x", (2, *shape), codec_for(shape, codec))

    assert field_bytes(shape, codec, 2) == field.num_bytes


def test_record_of_the_published_teachers_takes_what_was_measured() -> None:
    sam, vggt = TeacherConfig(kind="sam", preset="vit_b"), TeacherConfig(kind="vggt", preset="vggt_1b")
    int8 = cache_record_bytes(CacheConfig(root=Path("c"), sam=sam, vggt=vggt), LIBERO.num_views)
    fp16 = cache_record_bytes(CacheConfig(root=Path("c"), sam=sam, vggt=vggt, sam_codec="fp16", vggt_codec="fp16"), 2)

    int4 = cache_record_bytes(CacheConfig(root=Path("c"), sam=sam, vggt=vggt, vggt_codec="int4"), 2)

    assert int8 / 2**20 == pytest.approx(3.06, abs=0.02)  # docs/cache.md
    assert int4 / 2**20 == pytest.approx(2.63, abs=0.01)
    assert fp16 / 2**20 == pytest.approx(6.0, abs=0.01)
