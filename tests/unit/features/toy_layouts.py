"""Layouts of small records: SAM and VGGT alone, and with a third teacher."""

from __future__ import annotations

import numpy as np

from pokevla.features.codec import codec_for
from pokevla.features.layout import Features, FieldLayout, RecordLayout, encode_features


def field(name: str, shape: tuple[int, ...], stored_as: str) -> FieldLayout:
    return FieldLayout(name, name, (2, *shape), codec_for(shape, stored_as))  # pyright: ignore[reportArgumentType]


def sam_and_vggt(sam: str = "int8", vggt: str = "int8") -> RecordLayout:
    return RecordLayout((field("sam", (3, 9, 9), sam), field("vggt", (4, 6), vggt)))


LAYOUT = sam_and_vggt()
AUDIT = sam_and_vggt("fp16", "fp16")
THREE = RecordLayout((*LAYOUT.fields, field("depth", (1, 5, 5), "int8"), field("tokens", (9, 2), "fp16")))
ALONE = RecordLayout((field("tokens", (9, 2), "int8"),))


def random_features(seed: int, layout: RecordLayout) -> Features:
    rng = np.random.default_rng(seed)
    outputs = {field.name: rng.normal(size=(1, *field.shape)).astype(np.float32) for field in layout.fields}
    return encode_features(outputs, layout)[0]
