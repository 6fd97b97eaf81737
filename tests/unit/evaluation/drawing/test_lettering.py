"""Instructions of any length fit their picture."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pokevla.evaluation.drawing.lettering import evenly, font, wrapped

WORDS = st.lists(st.text(st.characters(codec="ascii", exclude_categories=("Z", "C")), min_size=1, max_size=40))


@given(words=WORDS, width=st.integers(30, 400))
def test_no_line_is_wider_than_its_place_and_no_letter_is_lost(words: list[str], width: int) -> None:
    lines = wrapped(" ".join(words), font(14), width, most=10_000)
    assert all(font(14).getlength(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(words)


@given(words=WORDS, most=st.integers(1, 3))
def test_what_is_left_out_ends_in_dots(words: list[str], most: int) -> None:
    text = " ".join(words)
    whole, cut = wrapped(text, font(14), 120, 10_000), wrapped(text, font(14), 120, most)
    assert len(cut) == min(len(whole), most)
    assert all(font(14).getlength(line) <= 120 for line in cut)
    assert (cut == whole) == (len(whole) <= most)
    assert cut == whole or cut[-1].endswith(" ...")


def test_moments_are_spread_from_the_first_to_the_last() -> None:
    assert evenly(29, 5) == [0, 7, 14, 21, 28]
    assert evenly(3, 8) == [0, 1, 2]
    assert evenly(1, 8) == [0]
