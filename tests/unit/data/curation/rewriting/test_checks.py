from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.data.curation.rewriting.checks import REFUSED, can_ask, refusal
from pokevla.data.curation.rewriting.prompt import NUM_PHRASINGS, Label, Phrasings, ask, read_reply
from pokevla.data.curation.rewriting.templates import TEMPLATES, fill_template

GOOD = [
    ("turn on", "tap", "Where should I touch to turn the kitchen tap on?"),
    ("turn on", "tap", "Show the spot for switching on the tap."),
    ("take", "scissors", "Which point lets you pick up the scissors?"),
    ("take", "knife", "At what point would someone grab the knife?"),
    ("open", "drawer", "Find the contact location that opens the drawer."),
    ("put", "cup", "Where does a hand hold on when it sets the cup down?"),
    ("cut", "bell pepper", "Which place do fingers press while cutting the bell peppers?"),
    ("play with", "toy", "Where would a child touch the toy to play with it?"),
    ("turn", "left knob", "Where do I touch to turn the left knob?"),
    ("dry", "plate", "At which spot does one hold a plate when it is dried?"),
    ("open", "jar", "Where is the jar touched when it gets opened?"),
    ("let go", "rope", "At what point would you touch the rope before letting go of it?"),
    ("take", "jalapeño", "Where would you touch to pick up the jalapeño?"),
    ("hold", "baker's knife", "Where do you touch to hold the baker's knife?"),
]
BAD = {
    "empty": "  ",
    "refusal": "I'm sorry, I can't see where to touch the drawer to open it.",
    "quotes": 'Where do you touch to "open" the drawer?',
    "numbers": "Touch the drawer at (0.5, 0.2) to open it.",
    "characters": "Where do you touch the drawer to open it <here>?",
    "not_one_sentence": "Open the drawer. Where do you touch it?",
    "length": "Where open drawer?",
    "no_object": "Where would you touch the cupboard to open it?",
    "no_action": "Where would you touch the drawer?",
    "no_place": "Please open the drawer with great care.",
    "added_claim": "Where would you touch the red drawer to open it?",
}
MORE_BAD = [
    ("refusal", "As an AI language model I do not know where to open the drawer."),
    ("refusal", "Sure, where would you touch to open the drawer?"),
    ("refusal", "Here are places where a hand can open the drawer."),
    ("quotes", "Where do you touch to ‘open’ the drawer?"),
    ("quotes", "'Where do you touch to open the drawer?'"),
    ("quotes", "Where is the `drawer` that hands touch to open?"),
    ("characters", "Where do you touch the drawer to open it<|im_end|>?"),
    ("characters", "Where do you touch the drawer: open it?"),
    ("not_one_sentence", "Where do you touch the drawer to open it"),
    ("length", f"Where do you touch {'really ' * 20}the drawer to open it?"),
    ("added_claim", "Where is the handle that you touch to open the drawer?"),
    ("added_claim", "Which two places open the drawer?"),
]


@pytest.mark.parametrize(("verb", "noun", "sentence"), GOOD)
def test_sentences_about_object_and_action_pass(verb: str, noun: str, sentence: str) -> None:
    assert can_ask(verb, noun)
    assert refusal(sentence, verb, noun) is None


@pytest.mark.parametrize(("code", "sentence"), [*BAD.items(), *MORE_BAD])
def test_other_sentences_are_refused_under_their_reason(code: str, sentence: str) -> None:
    assert refusal(sentence, "open", "drawer") == code


def test_every_reason_of_a_sentence_has_an_example() -> None:
    assert {*BAD, "no_answer", "label"} == REFUSED.keys()


def test_a_particle_must_be_there() -> None:
    assert refusal("Where do you touch to turn the tap?", "turn on", "tap") == "no_action"
    assert refusal("Where do you touch to turn off the tap?", "turn on", "tap") == "no_action"


@pytest.mark.parametrize("noun", ["7up", "cup (red)", "a" * 61, "cup|im end|", ""])
def test_labels_that_are_no_plain_words_are_not_asked_for(noun: str) -> None:
    assert not can_ask("take", noun)


def test_templates_pass_the_checks_unless_they_have_two_sentences() -> None:
    for verb, noun in [("take", "scissors"), ("turn on", "oven"), ("put", "cup"), ("pull open", "drawer")]:
        codes = {name: refusal(fill_template(name, verb, noun), verb, noun) for name in TEMPLATES}
        two_sentences = {"goal": "characters", **dict.fromkeys(["robot", "shown", "there"], "not_one_sentence")}
        assert codes == {**dict.fromkeys(TEMPLATES), **two_sentences}


def test_the_request_names_label_and_example() -> None:
    request = ask(Label("turn on", "tap"))
    assert "touch the tap to turn it on" in request
    assert request.endswith("For example: Which place on the tap would a hand touch to turn it on?")


def test_a_reply_is_read_line_by_line() -> None:
    good = [f"Where would you {word} touch to open the drawer?" for word in ("first-hand", "best", "then", "now", "so")]
    reply = "\n".join(["1. " + good[0], "- " + good[1], "", good[1], "(3) " + good[2], "Open the drawer.", *good[3:]])
    read = read_reply(reply, Label("open", "drawer"))
    assert read.sentences == tuple(good[:NUM_PHRASINGS])
    assert dict(read.refused) == {"length": 1}
    assert read_reply(None, Label("open", "drawer")).reason == "no_answer"
    assert read_reply("\n \n", Label("open", "drawer")).reason == "empty"
    thought = "<think>\nWhere to touch to open the drawer?\n</think>\n" + good[0]
    assert read_reply(thought, Label("open", "drawer")) == Phrasings((good[0],))
    assert read_reply(thought.split("</think>")[0], Label("open", "drawer")).reason == "empty"
    long = read_reply("Open the drawer.\n" * 10_000, Label("open", "drawer"))
    assert sum(count for _, count in long.refused) == 2 * NUM_PHRASINGS


@given(st.text(max_size=200))
def test_what_passes_is_one_line_of_plain_words(text: str) -> None:
    for sentence in read_reply(text, Label("open", "drawer")).sentences:
        assert refusal(sentence, "open", "drawer") is None
    refusal(f"Where to open the drawer {text} touch?", "open", "drawer")
