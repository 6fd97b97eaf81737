from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.data.records import (
    VLMRecord,
    box_record,
    format_boxes,
    format_points,
    parse_boxes,
    parse_choice,
    parse_points,
    point_record,
)
from pokevla.errors import DataError

UNIT = st.floats(0.0, 1.0, allow_nan=False)
POINTS = st.lists(st.tuples(UNIT, UNIT), min_size=1, max_size=5)


@given(POINTS)
def test_parsing_points_gives_the_numbers_back(points: list[tuple[float, float]]) -> None:
    parsed = parse_points(format_points(points))
    assert len(parsed) == len(points)
    for given_point, read in zip(points, parsed, strict=True):
        assert read == pytest.approx([min(v, 0.999) for v in given_point], abs=0.5001e-3)


@given(st.tuples(UNIT, UNIT, UNIT, UNIT))
def test_parsing_a_box_gives_the_numbers_back(corners: tuple[float, float, float, float]) -> None:
    x, y = sorted(corners[:2]), sorted(corners[2:])
    box = (x[0], y[0], x[1], y[1])
    assert parse_boxes(format_boxes([box]))[0] == pytest.approx([min(v, 0.999) for v in box], abs=0.5001e-3)


@given(POINTS)
def test_text_never_shows_a_bare_integer_or_one(points: list[tuple[float, float]]) -> None:
    for number in format_points(points).strip("[]()").replace("(", "").replace(")", "").split(", "):
        assert len(number) == 5
        assert number.startswith("0.")


@given(POINTS)
def test_the_target_is_exactly_what_the_text_says(points: list[tuple[float, float]]) -> None:
    fields = point_record(points)
    assert tuple(parse_points(fields["answer"])) == fields["points"]


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("[(0.412, 0.633)]", [(0.412, 0.633)]),
        ("here: (0.1,0.2) and ( .3 , .4 )", [(0.1, 0.2), (0.3, 0.4)]),
        ("(0.1, 0.2, 0.3, 0.4)", []),
        ("(320, 240)", []),
        ("(1.5, 0.2)", []),
        ("nowhere", []),
        ("", []),
    ],
)
def test_points_are_found_in_replies(text: str, points: list[tuple[float, float]]) -> None:
    assert parse_points(text) == points


def test_a_box_with_swapped_corners_is_no_box() -> None:
    assert parse_boxes("[(0.500, 0.200, 0.400, 0.300)]") == []


@pytest.mark.parametrize(
    ("text", "letter"), [("B", "B"), ("(A)", "A"), ("C.", "C"), ("B) left", "B"), ("A chair", None), ("", None)]
)
def test_choice_letters_are_read_from_the_start(text: str, letter: str | None) -> None:
    assert parse_choice(text) == letter


def make_record(**changes: object) -> VLMRecord:
    fields: dict[str, object] = {
        "key": "k",
        "source": "s",
        "subset": "u",
        "category": "grounding",
        "task": "t",
        "question": "Where?",
        "split": "train",
        "width": 8,
        "height": 8,
        **box_record((0.1, 0.2, 0.3, 0.4)),
        **changes,
    }
    return VLMRecord(**fields)  # type: ignore[arg-type]


def test_a_record_whose_answer_does_not_fit_its_target_is_refused() -> None:
    make_record().check()
    with pytest.raises(DataError, match="record k"):
        make_record(answer="[(0.100, 0.200, 0.300, 0.500)]").check()
    with pytest.raises(DataError, match="no question"):
        make_record(question=" ").check()


def test_json_holds_text_and_numbers() -> None:
    values = make_record().to_json()
    assert values["answer"] == "[(0.100, 0.200, 0.300, 0.400)]"
    assert values["target"] == {"points": [], "boxes": [[0.1, 0.2, 0.3, 0.4]], "choice": None}
