"""Sizes of the model presets and teachers for `pokevla plan`.

They are plain numbers, so that planning needs no torch; `tests/unit/recipe/planning/test_sizes.py` compares them with
the real models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from pokevla.embodiment.description import Embodiment
from pokevla.parts import TEACHERS, get_part
from pokevla.recipe.sections import CacheConfig, ModelConfig, TeacherConfig


@dataclass(frozen=True)
class Part:
    """One part of the VLM, in parameters."""

    total: int
    """All parameters, as held in memory."""
    used: int
    """Parameters in use: Prismatic reads the last but one block of a vision tower, so the last one is unused."""
    lora_per_rank: int
    """Adapter parameters per unit of LoRA rank over all its Linears: the sum of (inputs + outputs)."""


@dataclass(frozen=True)
class Stack:
    """Shape of a stack of transformer blocks, for the compute of attention and the memory of activations."""

    layers: int
    width: int
    mlp_width: int
    gated: bool


@dataclass(frozen=True)
class PresetSize:
    """All numbers of one preset."""

    vision: Part
    projector: Part
    language_model: Part
    own_total: int
    """Parameters that PokeVLA adds to the VLM (head, queries, SEG, decoders, projectors) whatever the robot."""
    own_trainable: int
    """Those of them that train (SAM's position code and some of its prompts stay)."""
    embedding: int
    """Parameters of the tied word embedding, within `language_model`: a table look-up, no multiplication."""
    patches: int
    """Vision tokens per view."""
    towers: tuple[Stack, Stack]
    language_stack: Stack
    head: Stack
    num_queries: int
    sam_shape: tuple[int, int, int]
    """SAM embedding of one view: channels, rows, columns."""
    vggt_shape: tuple[int, int]
    """VGGT target of one view: tokens, width."""

    def per_robot(self, embodiment: Embodiment) -> int:
        """Parameters that read the robot's proprio and write its actions; all of them train."""
        into, out_of = self.language_stack.width, self.head.width + 1  # the first Linear has its bias in `own_total`
        return into * embodiment.proprio_width + out_of * embodiment.action_width


PRESETS: dict[str, PresetSize] = {
    "tiny": PresetSize(
        vision=Part(42_984, 30_928, 480),
        projector=Part(12_768, 12_768, 456),
        language_model=Part(51_488, 51_488, 1_024),
        own_total=61_852,
        own_trainable=56_348,
        embedding=1024 * 32,
        patches=4,
        towers=(Stack(1, 16, 32, False), Stack(1, 24, 48, False)),
        language_stack=Stack(2, 32, 64, True),
        head=Stack(2, 32, 32, False),
        num_queries=4,
        sam_shape=(16, 4, 4),
        vggt_shape=(4, 24),
    ),
    "mini": PresetSize(
        vision=Part(729_152, 535_424, 7_104),
        projector=Part(201_600, 201_600, 1_824),
        language_model=Part(575_104, 575_104, 6_144),
        own_total=942_584,
        own_trainable=923_340,
        embedding=1024 * 128,
        patches=64,
        towers=(Stack(3, 96, 288, False), Stack(3, 64, 256, False)),
        language_stack=Stack(3, 128, 256, True),
        head=Stack(3, 128, 128, False),
        num_queries=8,
        sam_shape=(32, 16, 16),
        vggt_shape=(64, 64),
    ),
    # DINOv2-L/14 + SigLIP SO400M/14 + Qwen2.5-0.5B: 1,224,944,448 parameters without the projector (paper: 1.22 B).
    "pocket": PresetSize(
        vision=Part(730_911_680, 687_831_200, 840_256),
        projector=Part(27_552_000, 27_552_000, 22_272),
        language_model=Part(494_032_768, 494_032_768, 549_888),
        own_total=325_370_080,
        own_trainable=324_257_996,
        embedding=151_936 * 896,
        patches=256,
        towers=(Stack(23, 1024, 4096, False), Stack(26, 1152, 4304, False)),
        language_stack=Stack(24, 896, 4864, True),
        head=Stack(24, 896, 896, False),
        num_queries=64,
        sam_shape=(256, 64, 64),
        vggt_shape=(256, 2048),
    ),
}
# SAM's three published sizes share one neck (256 channels, 64 x 64).
SAM_SHAPES = {name: PRESETS[name].sam_shape for name in ("tiny", "mini")} | dict.fromkeys(
    ("vit_b", "vit_l", "vit_h"), (256, 64, 64)
)
VGGT_SHAPES = {"tiny": PRESETS["tiny"].vggt_shape, "mini": PRESETS["mini"].vggt_shape, "vggt_1b": (256, 2048)}
TEACHER_FIELDS: dict[str, dict[str, dict[str, tuple[int, ...]]]] = {
    "sam": {name: {"sam": shape} for name, shape in SAM_SHAPES.items()},
    "vggt": {name: {"vggt": shape} for name, shape in VGGT_SHAPES.items()},
}
"""Our teachers: kind -> preset -> shape of each field for one view, (C, G, G) or (N, T)."""
_GROUP = 64  # values of a grid that share a scale (pokevla.features.codec)
_ALIGNMENT = 4096  # a record's payload starts at a multiple of this


def preset_size(model: ModelConfig) -> PresetSize:
    """The numbers of a recipe's preset, with its own width of the geometry projector."""
    size = PRESETS[model.preset]
    tokens, width = size.vggt_shape
    if model.geometry_width is None:
        return size
    hidden, changed = size.language_stack.width, model.geometry_width
    more = (changed - width) * (hidden + 2) + changed**2 - width**2  # Linears D -> T and T -> T with biases
    return replace(
        size,
        own_total=size.own_total + more,
        own_trainable=size.own_trainable + more,
        vggt_shape=(tokens, changed),
    )


def teacher_presets(kind: str) -> tuple[str, ...]:
    """Presets of a teacher. One of another package is asked itself: its module has been imported as an extension."""
    return tuple(TEACHER_FIELDS[kind]) if kind in TEACHER_FIELDS else get_part("teacher", kind, TEACHERS).presets


def teacher_fields(teacher: TeacherConfig) -> dict[str, tuple[int, ...]]:
    """Fields of a teacher with their shape for one view, (C, G, G) or (N, T)."""
    if teacher.kind in TEACHER_FIELDS:
        return TEACHER_FIELDS[teacher.kind][teacher.preset]
    return get_part("teacher", teacher.kind, TEACHERS).fields(teacher.preset)


def cache_record_bytes(cache: CacheConfig, num_views: int) -> int:
    """Bytes on disk of one sample's features, all teachers and all views."""
    payload = 0
    for teacher in cache.all_teachers.values():
        for shape in teacher_fields(teacher).values():
            values = num_views * prod(shape)
            scales = num_views * (shape[0] * -(-shape[1] * shape[2] // _GROUP) if len(shape) == 3 else shape[0])
            payload += 2 * values if teacher.codec == "fp16" else values + 2 * scales
    return -(-payload // _ALIGNMENT) * _ALIGNMENT + _ALIGNMENT  # the header and its padding take one more block
