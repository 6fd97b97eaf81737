"""Which answers to one question about one image cannot both be right."""

from __future__ import annotations

from typing import Any

import pytest

from pokevla.data.screening.contradictions import box_overlap, contradict


def record(kind: str, value: Any, task: str = "object_point") -> dict[str, Any]:
    target = {"points": [], "boxes": [], "choice": None}
    names = {"point": "points", "trace": "points", "box": "boxes", "choice": "choice"}
    if kind in names:
        target[names[kind]] = value
    return {"answer_kind": kind, "task": task, "answer": str(value), "target": target}


@pytest.mark.parametrize(
    ("kind", "one", "other", "expected"),
    [
        ("choice", "A", "B", True),
        ("choice", "A", "A", False),
        ("text", "Yes.", "no", True),
        ("text", "yes", "Yes", False),
        ("text", "red", "dark red", False),
        ("point", [[0.1, 0.1]], [[0.2, 0.2]], False),
        ("point", [[0.1, 0.1]], [[0.3, 0.1]], True),
        ("point", [[0.1, 0.1], [0.9, 0.9]], [[0.1, 0.1]], True),
        ("box", [[0.1, 0.1, 0.3, 0.3]], [[0.1, 0.1, 0.3, 0.25]], False),
        ("box", [[0.1, 0.1, 0.3, 0.3]], [[0.25, 0.25, 0.5, 0.5]], True),
        ("trace", [[0.1, 0.1], [0.2, 0.2]], [[0.9, 0.9], [0.8, 0.8]], False),
    ],
)
def test_contradictions(kind: str, one: Any, other: Any, expected: bool) -> None:
    assert contradict(record(kind, one), record(kind, other)) is expected
    assert contradict(record(kind, other), record(kind, one)) is expected


def test_free_space_has_many_right_points() -> None:
    far = [record("point", [[place, place]], "freespace_point") for place in (0.1, 0.9)]
    assert not contradict(*far)


def test_the_overlap_of_boxes() -> None:
    assert box_overlap((0, 0, 0.5, 0.5), (0, 0, 0.5, 0.25)) == pytest.approx(0.5)
    assert box_overlap((0, 0, 0.1, 0.1), (0.5, 0.5, 0.6, 0.6)) == 0.0
    assert box_overlap((0.2, 0.2, 0.2, 0.2), (0.2, 0.2, 0.2, 0.2)) == 0.0
