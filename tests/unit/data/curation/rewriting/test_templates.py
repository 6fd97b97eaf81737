from __future__ import annotations

import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.data.curation.rewriting.actions import SYNONYMS, parse_action
from pokevla.data.curation.rewriting.grammar import ing_form, is_plural, singular_and_plural, with_article
from pokevla.data.curation.rewriting.templates import TEMPLATES, choose_template, fill_template
from pokevla.data.curation.texts import with_suffix
from pokevla.data.records import REPLY_WITH

VERBS = {
    "take": "taking", "put": "putting", "open": "opening", "tie": "tying", "stir": "stirring", "mix": "mixing",
    "dye": "dyeing", "squeeze": "squeezing", "screw": "screwing", "peel": "peeling", "unplug": "unplugging",
    "unzip": "unzipping", "untie": "untying", "refill": "refilling", "transfer": "transferring", "dry": "drying",
    "chop": "chopping", "water": "watering", "break": "breaking", "turn on": "turning on", "cut off": "cutting off",
    "free": "freeing", "close": "closing", "press": "pressing", "zip": "zipping", "wrap": "wrapping",
}  # fmt: skip
ARTICLES = [
    "an onion", "an oven", "a unit", "an umbrella", "a utensil", "a uniform", "an hourglass", "a house", "a euro coin",
    "an sd card", "a tv remote", "a usb stick", "an x-ray", "a pair of scissors", "some water", "some plates",
    "a glass", "a bunch of keys", "a bus", "a cutting board", "some chopped onions", "an iron", "a yam", "a lens",
]  # fmt: skip


@pytest.mark.parametrize(("verb", "form"), VERBS.items())
def test_ing_forms(verb: str, form: str) -> None:
    assert ing_form(verb) == form


@pytest.mark.parametrize("phrase", ARTICLES)
def test_articles(phrase: str) -> None:
    noun = phrase.removeprefix("a pair of ").split(" ", 1)[1] if "pair of" not in phrase else phrase[10:]
    assert with_article(noun.strip()) == phrase


def test_plural_nouns_take_them() -> None:
    plural = ["scissors", "tongs", "bell peppers", "knives", "keys", "clothes", "trousers", "tomatoes"]
    singular = ["glass", "bus", "box of matches", "knife", "gas", "cactus", "bunch of keys", "cup", "dress"]
    assert [noun for noun in plural if not is_plural(noun)] == []
    assert [noun for noun in singular if is_plural(noun)] == []
    assert {"box", "boxes"} <= singular_and_plural("boxes") & singular_and_plural("box")
    assert {"cherry", "cherries"} <= singular_and_plural("cherries") & singular_and_plural("cherry")


@pytest.mark.parametrize(
    ("verb", "noun", "with_noun", "with_pronoun"),
    [
        ("turn on", "tap", "turn on the tap", "turn it on"),
        ("pull open", "drawer", "pull the drawer open", "pull it open"),
        ("interact with", "phone", "interact with the phone", "interact with it"),
        ("turn upside down", "cup", "turn the cup upside down", "turn it upside down"),
        ("put into", "spoons", "put in the spoons", "put them in"),
        ("take from", "scissors", "take the scissors", "take them"),
        ("take out of", "plate", "take out the plate", "take it out"),
        ("put", "tongs", "put down the tongs", "put them down"),
        ("hold on to", "rope", "hold on to the rope", "hold on to it"),
        ("let go", "rope", "let go of the rope", "let go of it"),
        ("hold on", "rails", "hold on to the rails", "hold on to them"),
        ("cut", "bread", "cut the bread", "cut it"),
    ],
)
def test_phrasal_verbs_with_noun_and_pronoun(verb: str, noun: str, with_noun: str, with_pronoun: str) -> None:
    action = parse_action(verb)
    assert (action.on_noun(noun), action.on_pronoun(noun)) == (with_noun, with_pronoun)


def test_sentences_of_a_plural_noun_and_a_phrasal_verb() -> None:
    assert fill_template("there", "turn off", "lights") == (
        "The lights are in view. Show where to make contact in order to turn them off."
    )
    assert fill_template("shown", "take", "tongs", 1) == (
        "This picture shows a pair of tongs. Where would you touch to pick them up?"
    )
    assert fill_template("while", "stir", "soup") == "While stirring the soup, where does the hand make contact?"
    assert fill_template("instruction", "put", "cup") == (
        "Point at the part of the cup that a hand uses for putting it down."
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_name_the_object_and_leave_room_for_the_form_of_the_answer(name: str) -> None:
    for verb, noun in [("take", "scissors"), ("turn on", "oven"), ("play with", "toy")]:
        sentence = fill_template(name, verb, noun)
        assert noun in sentence
        assert sentence[-1] in ".?"
        assert sentence[0].isupper()
        assert not set("{}_") & set(sentence)
        assert with_suffix(sentence, "point") == f"{sentence} {REPLY_WITH['point']}"


def test_every_synonym_list_begins_with_its_verb() -> None:
    assert [verb for verb, others in SYNONYMS.items() if others[0] != verb] == []
    assert [verb for verb in SYNONYMS if parse_action(verb).words != verb] == []


def test_choice_depends_on_seed_and_record_and_uses_every_template() -> None:
    chosen = [choose_template("take", "cup", 0, f"record {n}") for n in range(1200)]
    assert chosen == [choose_template("take", "cup", 0, f"record {n}") for n in range(1200)]
    counts = Counter(name for name, _ in chosen)
    assert counts.keys() == TEMPLATES.keys()
    assert max(counts.values()) < 150  # 100 expected
    others = [choose_template("take", "cup", 1, f"record {n}") for n in range(1200)]
    assert sum(one == other for one, other in zip(chosen, others, strict=True)) < 240
    # The stream of Philox never changes, so neither do datasets.
    assert choose_template("open", "drawer", 0, "a")[0] == "robot"


words = st.text(string.ascii_lowercase + "éß", min_size=1, max_size=12)


@given(st.lists(words, min_size=1, max_size=3), st.lists(words, min_size=1, max_size=3), st.integers(0, 9))
def test_any_words_give_a_sentence(verb: list[str], noun: list[str], synonym: int) -> None:
    for name in TEMPLATES:
        sentence = fill_template(name, " ".join(verb), " ".join(noun), synonym)
        assert " ".join(noun) in sentence
        assert "  " not in sentence
