"""Letters of options in replies. The table of the official rule was made by running Cambrian's scorers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.evaluation.vlm_benchmarks.parsing.letters import (
    official_choice_score,
    official_letter,
    option_letter,
    strict_letter,
)

SOURCES = ("ADE20K", "COCO", "Omni3D")
CHOICES = ("right", "left", "above")


@pytest.mark.parametrize(
    ("reply", "official", "strict"),
    [
        ("B", "b", "B"),
        ("(B)", "b", "B"),
        ("B.", "b", "B"),
        ("b) left", "b", "B"),
        ("(B) left", "b", "B"),
        ("The answer is B.", "b", "B"),
        ("The answer is (B).", "b", "B"),
        ("Answer: B", "b", "B"),
        ("answer is: B", ":", "B"),
        (": B", ":", None),
        ("Option B", "o", "B"),
        ("[B]", "[", "B"),
        ("**B**", "*", "B"),
        ("\\boxed{B}", "\\", "B"),
        ("<answer>B</answer>", "<", "B"),
        ("A chair", "a", None),
        ("Both A and B", "b", None),
        ("It looks like A, but. Answer: C", "c", None),
        ("<think>A or B? B.</think> C", "<", "C"),
        ("", "", None),
        ("B) right", "b", None),
        ("F", "f", None),
        ("left", "l", None),
        ("B left", "b", None),
    ],
)
def test_letters_by_the_official_rule_and_without_doubt(reply: str, official: str, strict: str | None) -> None:
    assert {official_letter(reply, source) for source in SOURCES} == {official}
    assert strict_letter(reply, CHOICES) == strict


def test_only_omni3d_removes_colons_at_the_end() -> None:
    assert [official_letter("(B):", source) for source in SOURCES] == ["b", "b", "b"]
    assert [official_letter(":", source) for source in SOURCES] == [":", ":", ""]


def test_the_text_of_an_option_counts_only_where_it_is_one_character() -> None:
    assert official_choice_score("left", "Omni3D", CHOICES, "B") == 0.0
    assert official_choice_score("3", "Omni3D", ("2", "3"), "B") == 1.0
    assert official_choice_score("3", "COCO", ("2", "3"), "B") == 0.0
    assert official_choice_score("Both A and B", "COCO", CHOICES, "B") == 1.0, "a false hit of the official rule"


@given(st.text(alphabet="ABab()[]*.: answeris<>/thk\\boxed{}", max_size=40) | st.text(max_size=40))
def test_any_reply_has_a_letter_or_none(reply: str) -> None:
    assert all(len(official_letter(reply, source)) <= 1 for source in SOURCES)
    assert strict_letter(reply, CHOICES) in (None, "A", "B", "C")


@given(st.integers(0, 2), st.sampled_from(["{}", "({})", "{}.", " {}\n", "{})", "The answer is {}.", "Answer: {}"]))
def test_the_usual_forms_are_read_alike(index: int, form: str) -> None:
    letter = option_letter(index)
    reply = form.format(letter)
    assert strict_letter(reply, CHOICES) == letter
    assert {official_letter(reply, source) for source in SOURCES} == {letter.lower()}
