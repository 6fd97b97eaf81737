"""Options change places, the answer stays what it was."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pokevla.data.mixing.choices import LETTERS, read_choice, reordered, yes_or_no
from pokevla.data.mixing.drawing import thinned
from pokevla.data.records import REPLY_WITH, format_points, parse_choice, parse_points

SUFFIX = REPLY_WITH["choice"]
WORDS = st.from_regex(r"[a-z]{2,8}( [a-z0-9.]{2,8}){0,2}[a-z]", fullmatch=True).filter(
    lambda text: not {"or", "and"} & set(text.split())
)
OPTIONS = st.lists(WORDS, min_size=2, max_size=len(LETTERS), unique_by=str.casefold)


def record(question: str, letter: str, answer: str | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "key": "set-part-00000007",
        "question": question,
        "answer": letter if answer is None else answer,
        "answer_kind": "choice",
        "target": {"points": [], "boxes": [], "choice": letter},
        "orig": {"file": "a.json"},
        **fields,
    }


def asked(options: list[str], form: str) -> str:
    lettered = list(zip(LETTERS, options, strict=False))
    if form == "lines":
        return "What is it?\n" + "\n".join(f"{a}. {text}" for a, text in lettered) + "\nAnswer with the letter."
    if form == "or":
        *first, last = [f"({a}) {text}" for a, text in lettered]
        return f"Is it {', '.join(first)}, or {last}? {SUFFIX}"
    return f"What is it? {' '.join(f'({a}) {text}' for a, text in lettered)} {SUFFIX}"


@settings(max_examples=60)
@given(OPTIONS, st.sampled_from(["row", "or", "lines"]), st.data())
def test_the_answer_is_the_same_option_and_no_option_is_lost(
    options: list[str], form: str, data: st.DataObject
) -> None:
    right = data.draw(st.integers(0, len(options) - 1))
    place = data.draw(st.integers(0, len(options) - 1))
    before = record(asked(options, form), LETTERS[right])
    choice = read_choice(before)
    if choice is None:  # such as "none of the": left alone
        return
    assert list(choice.texts) == options
    after = reordered(before, choice, place, data.draw(st.integers(0, 2**64 - 1)))
    again = read_choice(after)
    assert again is not None
    assert again.right == place
    assert again.texts[place] == options[right]
    assert sorted(again.texts) == sorted(options)
    assert after["answer"] == after["target"]["choice"] == LETTERS[place] == parse_choice(after["answer"])
    assert [options[LETTERS.index(letter)] for letter in after["orig"]["options"]] == list(again.texts)
    assert after["question"] == asked(list(again.texts), form)  # letters, separators and the rest stay
    assert before["target"]["choice"] == LETTERS[right]


@pytest.mark.parametrize("form", ["row", "or", "lines"])
def test_ordinary_options_are_told_apart(form: str) -> None:
    choice = read_choice(record(asked(["the red cup", "2 m", "a bowl"], form), "B"))
    assert choice is not None
    assert choice.texts == ("the red cup", "2 m", "a bowl")


def test_an_answer_with_letter_and_text_keeps_its_form() -> None:
    before = record("Which is nearer? (A) stool (B) basket", "A", "(A) stool")
    choice = read_choice(before)
    assert choice is not None
    after = reordered(before, choice, 1, 3)
    assert (after["question"], after["answer"]) == ("Which is nearer? (A) basket (B) stool", "(B) stool")


def test_options_that_are_sentences_keep_their_full_stops() -> None:
    before = record("What next?\nA. Lift it.\nB. Put it down.\nAnswer with the letter.", "A")
    choice = read_choice(before)
    assert choice is not None
    assert reordered(before, choice, 1, 0)["question"].startswith("What next?\nA. Put it down.\nB. Lift it.\n")


@pytest.mark.parametrize(
    "question",
    [
        "Which? (A) cup (C) bowl",
        "Which? (B) cup (A) bowl",
        "Which? (A) cup (B) cup",
        "Which? (A) cup (B) bowl (C) both A and B",
        "Which? (A) cup (B) bowl (C) none of the above",
        "Which of the boxes (A) and (B) is nearer? (A) the one at A (B) the one at B",
        "A and B are marked. Which is nearer? (A) cup (B) bowl",
        "Which is option B? (A) cup (B) bowl",
        "Which? (A) cup (B)",
        "Which? (A) a cup. It is red (B) a bowl. It is blue",
        "Which is nearer?",
    ],
)
def test_what_depends_on_letters_or_cannot_be_told_apart_stays(question: str) -> None:
    assert read_choice(record(question, "A")) is None


def test_a_conversation_that_speaks_of_letters_later_stays() -> None:
    question = "Which is nearer? (A) stool (B) basket"
    assert read_choice(record(question, "A", further_turns=[["What colour is it?", "A red one."]])) is not None
    assert read_choice(record(question, "A", further_turns=[["Why not B?", "It is farther."]])) is None
    assert read_choice(record(question, "A", further_turns=[["And now? (A) cup (B) bowl", "A"]])) is None


def test_an_answer_that_is_another_option_stays() -> None:
    assert read_choice(record("Which? (A) stool (B) basket", "A", "(A) basket")) is None
    assert read_choice(record("Which? (A) stool (B) basket", "C")) is None


def test_the_others_are_drawn_by_key_and_seed() -> None:
    orders: Counter[str] = Counter()
    for number in range(600):
        before = record(asked(["cup", "bowl", "spoon"], "row"), "A", key=f"k{number}")
        choice = read_choice(before)
        assert choice is not None
        orders[reordered(before, choice, 1, 7)["orig"]["options"]] += 1
        assert reordered(before, choice, 1, 7) == reordered(before, choice, 1, 7)
    assert set(orders) == {"BAC", "CAB"}
    assert min(orders.values()) > 240


def test_yes_and_no_are_recognised() -> None:
    text = {"answer_kind": "text", "target": {"choice": None}, "question": "Is it red?"}
    assert yes_or_no({**text, "answer": "Yes."}, None) == "yes"
    assert yes_or_no({**text, "answer": "no"}, None) == "no"
    assert yes_or_no({**text, "answer": "Yes, it is."}, None) is None
    assert yes_or_no({**text, "answer": "No", "further_turns": [["Why?", "It is blue."]]}, None) is None
    choice = record("Is it behind? (A) yes (B) no", "B")
    assert yes_or_no(choice, read_choice(choice)) == "no"


@given(st.integers(1, 64), st.integers(1, 12), st.integers(0, 2**32))
def test_thinned_points_are_some_of_the_points_in_their_order(count: int, most: int, seed: int) -> None:
    points = [[round(number / 100, 3), 0.5] for number in range(count)]
    before = {"key": "k", "answer_kind": "point", "answer": format_points(points), "target": {"points": points}}
    after = thinned(before, most, seed)
    kept = after["target"]["points"]
    assert len(kept) == min(count, most)
    assert [point for point in points if point in kept] == kept
    assert [list(point) for point in parse_points(after["answer"])] == kept
    assert (after == before) == (count <= most)
    trace = {**before, "answer_kind": "trace"}
    assert thinned(trace, most, seed) is trace
