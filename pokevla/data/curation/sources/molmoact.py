"""MolmoAct's traces (allenai/MolmoAct-Pretraining-Mixture, config `auxiliary_trace`; parquet): where the gripper goes.

Coordinates are integers from 0 to 255 on a grid over the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokevla.data.curation.drafts import Draft, ImageBytes, Row, RowFile
from pokevla.data.curation.rules import Reject
from pokevla.data.curation.texts import read_tuples
from pokevla.errors import DataError

MAX_POINTS = 5
_TRACE = re.compile(r"\[\s*\[.*?\]\s*\]", re.DOTALL)


@dataclass(frozen=True)
class MolmoAct:
    """Traces of MolmoAct."""

    name: str = "molmoact"
    license: str = "CC-BY-4.0"
    version: int = 1
    box_sample: None = None

    def files(self, root: Path) -> Sequence[RowFile]:
        """All parquet files."""
        paths = sorted(root.glob("**/*.parquet"))
        if not paths:
            raise DataError(f"{root} holds no parquet file.", "Give the folder of the config auxiliary_trace.")
        return [RowFile(path, f"trace{number:05d}") for number, path in enumerate(paths)]

    def drafts(self, row: Row) -> Iterable[Draft | Reject]:
        """One trace."""
        value = row.value
        annotation = value.get("annotation")
        if annotation is None:
            raise Reject("trace_missing")
        if not isinstance(annotation, str):
            raise Reject("row_layout", "annotation is no text")
        trace = read_tuples(annotation, 2)
        question, answer = _exchange(value)
        in_answer = _TRACE.search(answer)
        if in_answer is None or read_tuples(in_answer[0], 2) != trace:
            raise Reject("trace_mismatch", answer[:60])
        if len(trace) > MAX_POINTS:
            raise Reject("points_too_many", str(len(trace)))
        if any(number < 0 for point in trace for number in point):
            raise Reject("coord_range", annotation[:60])
        if any(number > 255 for point in trace for number in point):  # pixels of larger frames, in some configs
            raise Reject("coord_scale_mismatch", annotation[:60])
        image = value.get("image")
        content = image.get("bytes") if isinstance(image, dict) else image
        if not isinstance(content, bytes) or not content:
            raise Reject("image_missing", "no bytes")
        yield Draft(
            category="affordance",
            task="gripper_trace",
            question=question,
            image=ImageBytes(content, f"row {row.number}"),
            kind="trace",
            points=trace,
            scale="byte",
            orig={"raw_answer": annotation},
        )


def _exchange(value: dict[str, Any]) -> tuple[str, str]:
    talk = value.get("conversations")
    texts = talk.get("value") if isinstance(talk, dict) else None
    if not isinstance(texts, list) or not isinstance(talk, dict) or not all(isinstance(text, str) for text in texts):
        raise Reject("row_layout", "no conversations")
    if len(texts) != 2 or talk.get("from") not in (["human", "gpt"], ["user", "assistant"]):
        raise Reject("turn_order", str(talk.get("from"))[:60])
    question = texts[0].replace("<image>", "").strip()
    if not question:
        raise Reject("text_empty", "instruction")
    return question, texts[1]


MOLMOACT = MolmoAct()
