"""Numbers of the model presets and teachers that `pokevla plan` counts with.

Plain numbers, so that planning needs no torch; `tests/unit/recipe/planning/test_sizes.py` builds the models and
compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Part:
    """One part of the VLM, in parameters."""

    total: int
    """All parameters: what memory holds."""
    used: int
    """Those that take part: Prismatic reads the last block but one of a vision tower, the rest idles."""
    lora_per_rank: int
    """Adapter parameters per unit of LoRA rank over all its Linears: the sum of (inputs + outputs)."""


@dataclass(frozen=True)
class Stack:
    """A stack of transformer blocks: enough for attention's compute and for activations."""

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
    """Parameters that PokeVLA adds to the VLM: head, queries, SEG, decoders, projectors."""
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


PRESETS: dict[str, PresetSize] = {
    "tiny": PresetSize(
        vision=Part(42_984, 30_928, 480),
        projector=Part(12_768, 12_768, 456),
        language_model=Part(51_488, 51_488, 1_024),
        own_total=62_339,
        own_trainable=56_835,
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
        own_total=944_511,
        own_trainable=925_267,
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
        own_total=325_383_527,
        own_trainable=324_271_443,
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
# Teacher preset -> output of one view. SAM's three sizes share one neck (256 channels, 64 x 64).
SAM_SHAPES = {name: PRESETS[name].sam_shape for name in ("tiny", "mini")} | dict.fromkeys(
    ("vit_b", "vit_l", "vit_h"), (256, 64, 64)
)
VGGT_SHAPES = {"tiny": PRESETS["tiny"].vggt_shape, "mini": PRESETS["mini"].vggt_shape, "vggt_1b": (256, 2048)}
NUM_VIEWS = 2
_GROUP = 64  # values that share a scale in the int8 code of SAM (facts of the codec: pokevla.teachers.codec)
_ALIGNMENT = 4096  # a record's payload starts at a multiple of this


def cache_record_bytes(sam: str, vggt: str, sam_codec: str, vggt_codec: str) -> int:
    """Bytes on disk of one sample's features (both views) for teacher presets `sam`, `vggt` and their codecs."""
    channels, rows, columns = SAM_SHAPES[sam]
    tokens, _ = VGGT_SHAPES[vggt]
    sam_values, vggt_values = NUM_VIEWS * channels * rows * columns, NUM_VIEWS * prod(VGGT_SHAPES[vggt])
    sam_bytes = (
        sam_values * 2 if sam_codec == "fp16" else sam_values + 2 * NUM_VIEWS * channels * -(-rows * columns // _GROUP)
    )
    vggt_bytes = vggt_values * 2 if vggt_codec == "fp16" else vggt_values + 2 * NUM_VIEWS * tokens
    payload = sam_bytes + vggt_bytes
    return -(-payload // _ALIGNMENT) * _ALIGNMENT + _ALIGNMENT  # the header and its padding take one more block
