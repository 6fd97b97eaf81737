from __future__ import annotations

import pytest

from pokevla.data.card import texts
from pokevla.data.card.texts import TextCounts, plain_form


def test_texts_that_differ_in_case_spaces_and_punctuation_only_are_found() -> None:
    counts = TextCounts()
    counts.add(["Pick up the milk", "pick up  the milk.", "pick up the milk", "pick up the milk", "put it down", None])
    found = counts.to_dict()
    assert found["distinct"] == 5
    assert found["empty"] == 1
    assert found["listed"][0] == {"text": "pick up the milk", "count": 2}
    (group,) = found["variants"]
    assert {entry["text"] for entry in group} == {"Pick up the milk", "pick up  the milk.", "pick up the milk"}


def test_texts_of_another_meaning_are_not_taken_for_one() -> None:
    assert plain_form("turn left") != plain_form("turn right")
    assert plain_form("Größe") == plain_form("GRÖSSE")
    assert plain_form("拿起 牛奶。") == plain_form("拿起 牛奶")


def test_the_number_of_texts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MAX_TEXTS", 3)
    counts = TextCounts()
    counts.add(["a", "b", "c", "d", "a", "e"])
    found = counts.to_dict()
    assert (found["distinct"], found["others"]) == (3, 2)
    assert found["listed"][0] == {"text": "a", "count": 2}
