"""Sentences that ask for the place of contact. All are ours; none says more than the label does."""

from __future__ import annotations

from pokevla.data.curation.rewriting.actions import synonyms
from pokevla.data.curation.rewriting.grammar import ing_form, is_plural, with_article
from pokevla.data.randomness import raw

TEMPLATES: dict[str, str] = {
    "which_place": "Which place on the {noun} would a hand touch to {act_it}?",
    "mark": "Mark the spot to hold when you {act}.",
    "fingers": "I want to {act}; where do my fingers go?",
    "gripper": "Select a contact point for the gripper so that it can {act}.",
    "goal": "Goal: {act}. Give the place of contact.",
    "while": "While {acting}, where does the hand make contact?",
    "where_on": "Where on the {noun} should I put my hand to {act_it}?",
    "robot": "A robot has to {act}. Point to the place that its gripper should touch.",
    "shown": "This picture shows {a_noun}. Where would you touch to {act_it}?",
    "best": "What is a good spot for a hand that is about to {act}?",
    "instruction": "Point at the part of the {noun} that a hand uses for {acting_it}.",
    "there": "The {noun} {is} in view. Show where to make contact in order to {act_it}.",
}
"""Identifier, which a record keeps, and the sentence. `{act}`: turn on the tap; `{act_it}`: turn it on; `{acting}`:
turning on the tap."""


def fill_template(name: str, verb: str, noun: str, synonym: int = 0) -> str:
    """The sentence of a template. `verb` and `noun` are lower-case words; `synonym` counts round the verb's synonyms.

    Raises KeyError: there is no such template.
    """
    choices = synonyms(verb)
    action = choices[synonym % len(choices)]
    return TEMPLATES[name].format(
        noun=noun,
        a_noun=with_article(noun),
        act=action.on_noun(noun),
        act_it=action.on_pronoun(noun),
        acting=action.on_noun(noun, ing=True),
        acting_it=ing_form(action.on_pronoun(noun)),
        **{"is": "are" if is_plural(noun) else "is"},
    )


def choose_template(verb: str, noun: str, seed: int, key: str) -> tuple[str, str]:
    """(identifier, sentence) for the record `key`: a pure function of the arguments."""
    place, synonym = (int(number) for number in raw(2, seed, "affordance template", key))
    name = list(TEMPLATES)[place % len(TEMPLATES)]
    return name, fill_template(name, verb, noun, synonym)
