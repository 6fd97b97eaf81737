"""The table of samples of a dataset of questions."""

from __future__ import annotations

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
