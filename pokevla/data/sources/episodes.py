"""Table schemas of a robot dataset. They are the same for every robot: widths are in the values, not the columns."""

from __future__ import annotations

import pyarrow as pa

SAMPLE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("episode", pa.int32()),
        ("frame", pa.int32()),
        ("split", pa.string()),
        ("suite", pa.string()),
        ("task", pa.string()),
        ("task_index", pa.int32()),
        ("instruction", pa.string()),
        ("proprio", pa.list_(pa.float32())),
    ]
)
_SEQUENCE = pa.list_(pa.list_(pa.float64()))
EPISODE_SCHEMA = pa.schema(
    [
        ("episode", pa.int32()),
        ("suite", pa.string()),
        ("task", pa.string()),
        ("task_index", pa.int32()),
        ("instruction", pa.string()),
        ("file_instruction", pa.string()),
        ("split", pa.string()),
        ("length", pa.int32()),
        ("init_state_index", pa.int32()),
        ("target_shift", pa.list_(pa.float64())),
        ("actions", _SEQUENCE),
        ("executed_actions", _SEQUENCE),
        ("proprio", pa.list_(pa.list_(pa.float32()))),
    ]
)
