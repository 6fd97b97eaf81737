"""Whether two answers to the same question about the same image contradict each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

POINTS_APART = 0.15
"""Distance, in fractions of the image, from which two points are different places. Ours."""
BOXES_OVERLAP = 0.3
"""Intersection over union below which two boxes are different things. Ours."""
MANY_ANSWERS = frozenset({"freespace_point", "vacant_point", "place_point"})
"""Tasks with many right points."""
_YES_NO = frozenset({"yes", "no"})


def contradict(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records with the same question about the same image cannot both be right.

    Letters that differ, yes and no, a box that no box of the other overlaps, a point that is far from each point of
    the other. Free texts and traces never contradict each other; nor do points of tasks with many right ones.
    """
    kind = one["answer_kind"]
    first, second = one["target"], other["target"]
    if kind == "choice":
        return first["choice"] != second["choice"]
    if kind == "box":
        return _apart(first["boxes"], second["boxes"], lambda a, b: box_overlap(a, b) < BOXES_OVERLAP)
    if kind == "point":
        if one.get("task") in MANY_ANSWERS:
            return False
        return _apart(first["points"], second["points"], lambda a, b: math.dist(a, b) > POINTS_APART)
    words = {_word(one["answer"]), _word(other["answer"])}
    return kind == "text" and words == _YES_NO


def box_overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    union = _area(one) + _area(other) - width * height
    return width * height / union if union > 0 else 0.0


def _area(box: Sequence[float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _apart(first: Sequence[Any], second: Sequence[Any], is_apart: Any) -> bool:
    """Whether one of the lists has an entry that is apart from each of the other."""
    return any(all(is_apart(a, b) for b in second) for a in first) or any(
        all(is_apart(a, b) for a in first) for b in second
    )


def _word(answer: str) -> str:
    return answer.strip().rstrip(".").casefold()
