"""The sample table of datasets of questions."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

_PAIRS = pa.list_(pa.list_(pa.float64()))
SAMPLE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("category", pa.string()),
        ("task", pa.string()),
        ("answer_kind", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("target_points", _PAIRS),
        ("target_boxes", _PAIRS),
        ("choice", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
SCHEMA = SAMPLE_SCHEMA.append(pa.field("further_turns", pa.list_(pa.list_(pa.string()))))
"""Of sets that have conversations."""
SEVERAL_IMAGES = SCHEMA.append(pa.field("num_images", pa.int32()))
"""Of sets with samples of several images. Others lack the column, so that their bytes stay those of older ones."""


def schema_for(*, several_images: bool) -> pa.Schema:
    """The columns of a set that has samples of several images, or has none."""
    return SEVERAL_IMAGES if several_images else SCHEMA


def table_row(record: dict[str, Any]) -> dict[str, Any]:
    """The row of `SEVERAL_IMAGES` of a record as JSON, without key and shard."""
    names = ("split", "source", "category", "task", "answer_kind", "question", "answer", "width", "height")
    target = record["target"]
    return {
        **{name: record[name] for name in names},
        "target_points": target["points"],
        "target_boxes": target["boxes"],
        "choice": target["choice"],
        "further_turns": record.get("further_turns", []),
        "num_images": record.get("num_images", int(record["width"] > 0)),
    }
