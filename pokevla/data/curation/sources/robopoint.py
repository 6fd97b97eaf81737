"""RoboPoint (wentao-yuan/robopoint-data, `robopoint_1432k.json`): points on objects and in free space, and boxes.

Its LLaVA and VQA rows repeat LLaVA-Instruct-665K and are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokevla.data.curation.drafts import Draft, ImageFile, Row, RowFile
from pokevla.data.curation.rules import Reject
from pokevla.data.curation.sources.conversations import existing, read_turns, without_image_token
from pokevla.data.curation.texts import read_tuples, tuple_width

MAX_ANSWER = 800
"""Longer answers hold lists that do not end (as in other converters of this set)."""
_POINT_TASKS = {"object_ref": "object_point", "region_ref": "freespace_point"}


@dataclass(frozen=True)
class RoboPoint:
    """RoboPoint's own rows."""

    name: str = "robopoint"
    license: str = "Apache-2.0"
    version: int = 1

    def files(self, root: Path) -> Sequence[RowFile]:
        """The one list."""
        return existing(root, [("robopoint_1432k.json", "1432k")], "RoboPoint")

    def drafts(self, row: Row) -> Iterable[Draft | Reject]:
        """One record."""
        image, part = row.value.get("image"), _part(row.value)
        if image is None:
            raise Reject("other_set", "text only")
        if not isinstance(image, str):
            raise Reject("row_layout", "image is no text")
        turns = read_turns(row.value)
        answer = turns[0][1].strip()
        if part is None and (len(turns) > 1 or tuple_width(answer) != 4):
            raise Reject("other_set", image[:40])
        (question, answer), *further = without_image_token(turns, 1)
        if further:
            raise Reject("turn_order", f"{len(turns)} questions")
        if len(answer) > MAX_ANSWER:
            raise Reject("text_too_long", f"{len(answer)} characters")
        orig = {"id": str(row.value.get("id")), "part": part or "detection", "raw_answer": answer}
        shared: dict[str, Any] = {
            "category": "grounding",
            "question": question,
            "image": ImageFile(image, (f"images/{image}",)),
            "orig": orig,
        }
        if part is not None:
            yield Draft(**shared, task=_POINT_TASKS[part], kind="point", points=read_tuples(answer, 2))
            return
        if row.box_order is None:
            raise Reject("box_order_suspect", answer[:40])
        boxes = read_tuples(answer, 4)
        yield Draft(**shared, task="detection", kind="box", boxes=boxes, box_order=row.box_order)

    def box_sample(self, row: Row) -> Sequence[Sequence[float]]:
        """Boxes of detection rows."""
        if _part(row.value) is not None or not isinstance(row.value.get("image"), str):
            return []
        try:
            turns = read_turns(row.value)
            return read_tuples(turns[0][1], 4) if tuple_width(turns[0][1].strip()) == 4 else []
        except Reject:
            return []


def _part(value: dict[str, Any]) -> str | None:
    """Which of RoboPoint's point sets a row is of, by its image or id."""
    names = (str(value.get("image")), str(value.get("id")))
    return next((part for part in _POINT_TASKS if any(name.startswith(f"{part}/") for name in names)), None)


ROBOPOINT = RoboPoint()
