"""Sizes of the model presets and teachers for `pokevla plan`.

They are plain numbers, so that planning needs no torch; `tests/unit/recipe/planning/test_sizes.py` compares them with
the real models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from pokevla.parts import TEACHERS, get_part
from pokevla.recipe.sections import CacheConfig, ModelConfig, TeacherConfig, TokenCodec


@dataclass(frozen=True)
class TowerSize:
    """One image encoder. `layers` counts all blocks; Prismatic reads the last but one, so the last one is unused."""

    layers: int
    width: int
    heads: int
    mlp_width: int
    image_size: int  # px
    prefix_tokens: int  # class and register tokens
    layer_scale: bool
    pools: bool  # has SigLIP's pooling head, which is unused
    patch: int = 14  # px

    @property
    def patches(self) -> int:
        """Vision tokens of one view."""
        return (self.image_size // self.patch) ** 2


@dataclass(frozen=True)
class LanguageSize:
    """The language model, with tied word embeddings."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    mlp_width: int
    vocabulary: int

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


@dataclass(frozen=True)
class DecoderSize:
    """SAM's mask decoder and prompt encoder."""

    channels: int
    grid: int  # side of the image embedding
    heads: int = 8
    mlp_width: int = 2048
    layers: int = 2
    masks: int = 4
    prompt_channels: int = 16

    @property
    def cells(self) -> int:
        """Cells of the image embedding of one view."""
        return self.grid**2


@dataclass(frozen=True)
class HeadSize:
    """The action head."""

    layers: int
    width: int
    heads: int


@dataclass(frozen=True)
class PresetSize:
    """All numbers of one preset."""

    dino: TowerSize
    siglip: TowerSize
    language_stack: LanguageSize
    decoder: DecoderSize
    head: HeadSize
    num_queries: int
    vggt_shape: tuple[int, int]
    """VGGT target of one view: tokens, width."""

    @property
    def patches(self) -> int:
        """Vision tokens per view."""
        return self.dino.patches

    @property
    def sam_shape(self) -> tuple[int, int, int]:
        """SAM embedding of one view: channels, rows, columns."""
        return self.decoder.channels, self.decoder.grid, self.decoder.grid


PRESETS: dict[str, PresetSize] = {
    "tiny": PresetSize(
        dino=TowerSize(2, 16, 2, 32, 28, 5, layer_scale=True, pools=False),
        siglip=TowerSize(2, 24, 2, 48, 28, 0, layer_scale=False, pools=True),
        language_stack=LanguageSize(2, 32, 4, 2, 64, 1024),
        decoder=DecoderSize(16, 4, heads=2, mlp_width=32),
        head=HeadSize(2, 32, 4),
        num_queries=4,
        vggt_shape=(4, 24),
    ),
    "mini": PresetSize(
        dino=TowerSize(4, 96, 3, 288, 112, 5, layer_scale=True, pools=False),
        siglip=TowerSize(4, 64, 2, 256, 112, 0, layer_scale=False, pools=True),
        language_stack=LanguageSize(3, 128, 4, 2, 256, 1024),
        decoder=DecoderSize(32, 16, heads=2, mlp_width=64),
        head=HeadSize(3, 128, 4),
        num_queries=8,
        vggt_shape=(64, 64),
    ),
    # DINOv2-L/14 with registers, SigLIP SO400M/14 at 224 px, Qwen2.5-0.5B, SAM, VGGT-1B (docs/model.md).
    "pocket": PresetSize(
        dino=TowerSize(24, 1024, 16, 4096, 224, 5, layer_scale=True, pools=False),
        siglip=TowerSize(27, 1152, 16, 4304, 224, 0, layer_scale=False, pools=True),
        language_stack=LanguageSize(24, 896, 14, 2, 4864, 151_936),
        decoder=DecoderSize(256, 64),
        head=HeadSize(24, 896, 8),
        num_queries=64,
        vggt_shape=(256, 2048),
    ),
}
TEACHER_PARAMETERS = {
    ("sam", "vit_b"): 89_670_912,
    ("sam", "vit_l"): 308_278_272,
    ("sam", "vit_h"): 637_026_048,
    ("sam2", "hiera_tiny"): 27_219_392,
    ("sam2", "hiera_small"): 34_317_248,
    ("sam2", "hiera_base_plus"): 69_107_072,
    ("sam2", "hiera_large"): 212_703_536,
    ("vggt", "vggt_1b"): 909_112_320,
}
"""Parameters of the published teachers' encoders (image encoders, VGGT's aggregator), by kind and preset. They are
not in memory in training, which reads their cached features."""
# SAM's three published sizes share one neck (256 channels, 64 x 64).
SAM_SHAPES = {name: PRESETS[name].sam_shape for name in ("tiny", "mini")} | dict.fromkeys(
    ("vit_b", "vit_l", "vit_h"), (256, 64, 64)
)
SAM2_SHAPES = {name: PRESETS[name].sam_shape for name in ("tiny", "mini")} | dict.fromkeys(
    ("hiera_tiny", "hiera_small", "hiera_base_plus", "hiera_large"), (256, 64, 64)
)
VGGT_SHAPES = {"tiny": PRESETS["tiny"].vggt_shape, "mini": PRESETS["mini"].vggt_shape, "vggt_1b": (256, 2048)}
VGGT_SHAPES |= {f"{name}_area": shape for name, shape in VGGT_SHAPES.items()}  # the other pooling, the same shape
TEACHER_FIELDS: dict[str, dict[str, dict[str, tuple[int, ...]]]] = {
    "sam": {name: {"sam": shape} for name, shape in SAM_SHAPES.items()},
    "vggt": {name: {"vggt": shape} for name, shape in VGGT_SHAPES.items()},
    "sam2": {name: {"sam2": shape} for name, shape in SAM2_SHAPES.items()},
}
"""Our teachers: kind -> preset -> shape of each field for one view, (C, G, G) or (N, T)."""
TEACHER_FLOPS: dict[tuple[str, str], tuple[int, int]] = {
    ("sam", "tiny"): (465_920, 0),
    ("sam", "mini"): (84_934_656, 0),
    ("sam", "vit_b"): (972_077_334_528, 0),
    ("sam", "vit_l"): (2_985_680_306_176, 0),
    ("sam", "vit_h"): (5_961_082_830_848, 0),
    ("sam2", "tiny"): (3_892_224, 0),
    ("sam2", "mini"): (215_902_208, 0),
    ("sam2", "hiera_tiny"): (291_067_395_072, 0),
    ("sam2", "hiera_small"): (358_804_110_336, 0),
    ("sam2", "hiera_base_plus"): (646_214_145_024, 0),
    ("sam2", "hiera_large"): (1_823_358_320_640, 0),
    ("vggt", "tiny"): (290_976, 9_408),
    ("vggt", "mini"): (19_516_160, 1_893_376),
    ("vggt", "vggt_1b"): (2_862_424_743_936, 185_585_762_304),
}
"""Operations of our teachers' encoders, matrix products, convolutions and attention: a and b of a V + b V^2 for a
sample of V views. VGGT attends over all views at once."""
_GROUP = 64  # values of a grid, or of a token in four bits, that share a scale (pokevla.features.codec)
_ALIGNMENT = 4096  # a record's payload starts at a multiple of this


def preset_size(model: ModelConfig) -> PresetSize:
    """The numbers of a recipe's preset, with its own width of the geometry projector."""
    size = PRESETS[model.preset]
    if model.geometry_width is None:
        return size
    return replace(size, vggt_shape=(size.vggt_shape[0], model.geometry_width))


def teacher_presets(kind: str) -> tuple[str, ...]:
    """Presets of a teacher. One of another package is asked itself: its module has been imported as an extension."""
    return tuple(TEACHER_FIELDS[kind]) if kind in TEACHER_FIELDS else get_part("teacher", kind, TEACHERS).presets


def teacher_fields(teacher: TeacherConfig) -> dict[str, tuple[int, ...]]:
    """Fields of a teacher with their shape for one view, (C, G, G) or (N, T)."""
    if teacher.kind in TEACHER_FIELDS:
        return TEACHER_FIELDS[teacher.kind][teacher.preset]
    return get_part("teacher", teacher.kind, TEACHERS).fields(teacher.preset)


def field_bytes(shape: tuple[int, ...], codec: TokenCodec, num_views: int) -> int:
    """Bytes of one sample of a field with `shape` a view, (C, G, G) or (N, T): values and scales."""
    values = num_views * prod(shape)
    if codec == "fp16":
        return 2 * values
    if codec == "int4":  # a scale and a minimum for each group
        return values // 2 + 4 * num_views * shape[0] * -(-shape[1] // _GROUP)
    return values + 2 * num_views * (shape[0] * -(-shape[1] * shape[2] // _GROUP) if len(shape) == 3 else shape[0])


def cache_record_bytes(cache: CacheConfig, num_views: int) -> int:
    """Bytes on disk of one sample's features, all teachers and all views."""
    payload = sum(
        field_bytes(shape, teacher.codec, num_views)
        for teacher in cache.all_teachers.values()
        for shape in teacher_fields(teacher).values()
    )
    return -(-payload // _ALIGNMENT) * _ALIGNMENT + _ALIGNMENT  # the header and its padding take one more block


def teacher_flops(teacher: TeacherConfig, num_views: int) -> int | None:
    """Operations of a teacher for one sample; None for one of another package, whose operations nobody counts."""
    linear, squared = TEACHER_FLOPS.get((teacher.kind, teacher.preset.removesuffix("_area")), (None, 0))
    return None if linear is None else linear * num_views + squared * num_views**2
