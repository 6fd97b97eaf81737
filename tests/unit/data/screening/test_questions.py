"""Questions compared without what says nothing about them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pokevla.data.records import REPLY_WITH
from pokevla.data.screening.questions import (
    SHORTEST,
    SIMILAR,
    answer_text,
    band_hashes,
    ngram_hashes,
    plain_question,
    question_text,
    shingles,
    similarity,
)

LONG = " ".join(f"word{number}" for number in range(40))


def test_the_request_for_a_form_does_not_count() -> None:
    bare = plain_question("Where is the cup?")
    assert bare == "where is the cup"
    for request in (*REPLY_WITH.values(), "Your answer should be formatted as a list of tuples, i.e. [(x1, y1)]."):
        assert plain_question(f"<image>\nWhere is the  CUP? {request}") == bare


def test_further_turns_belong_to_question_and_answer() -> None:
    record = {"question": "What?", "answer": "A Cup.", "further_turns": [["Where?", "There"]]}
    assert (question_text(record), answer_text(record)) == ("what where", "a cup.\nthere")
    assert answer_text({"question": "", "answer": "[(0.1, 0.2)]"}) != answer_text(
        {"question": "", "answer": "[(0.12)]"}
    )


def test_a_word_more_in_a_long_question_is_nearly_the_same_one_for_another_in_a_short_one_is_not() -> None:
    assert similarity(LONG, f"{LONG} indeed") >= SIMILAR
    assert similarity("is the cup left of the bowl", "is the cup right of the bowl") < SIMILAR
    bands = band_hashes([LONG, f"{LONG} indeed", "something else that has nothing in common"])
    assert (bands[0] == bands[1]).any()
    assert not (bands[0] == bands[2]).any()


@given(st.lists(st.text(max_size=60), max_size=6))
def test_equal_texts_have_equal_hashes_whatever_stands_beside_them(texts: list[str]) -> None:
    together = band_hashes(texts)
    assert together.shape == (len(texts), 8)
    for text, bands in zip(texts, together, strict=True):
        assert np.array_equal(bands, band_hashes([text])[0])


def test_no_text_that_needs_no_minhash_is_similar_to_another() -> None:
    for count in range(3, SHORTEST + 6):
        text = " ".join(f"w{number}" for number in range(count))
        is_near = similarity(text, f"{text} more") >= SIMILAR
        assert is_near == (len(shingles(text)) >= SHORTEST)


def test_sequences_of_eight_words() -> None:
    assert len(ngram_hashes("one two three four five six seven")) == 0
    assert len(ngram_hashes("a b c d e f g h i")) == 2
    assert len(ngram_hashes("a " * 30)) == 1, "each counts once"
    assert set(ngram_hashes("a b c d e f g h i").tolist()) < set(ngram_hashes("x a b c d e f g h i y").tolist())
