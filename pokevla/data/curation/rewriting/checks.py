"""Whether a sentence of a language model asks for the place of contact and says no more than its label."""

from __future__ import annotations

import re

from pokevla.data.curation.rewriting.actions import Action, synonyms
from pokevla.data.curation.rewriting.grammar import ing_form, singular_and_plural, word_set

MIN_WORDS, MAX_WORDS = 4, 25
_PARTICLE_WITHIN = 8
"""How many words after its verb a particle may stand: turn the big kitchen tap on."""

REFUSED: dict[str, str] = {
    "no_answer": "the model gave no answer",
    "label": "the label holds digits or other signs, or is long; the model was not asked",
    "empty": "the answer has no text",
    "refusal": "the model refuses, or speaks of itself",
    "quotes": "it holds quotation marks",
    "numbers": "it holds a digit, as coordinates do",
    "characters": "it holds other characters than letters and plain punctuation",
    "not_one_sentence": "it is not one sentence that ends in a full stop or question mark",
    "length": "it has fewer than 4 words or more than 25",
    "no_object": "it does not name the object",
    "no_action": "it names neither the action nor a synonym",
    "no_place": "it does not ask for a place or a contact",
    "added_claim": "it names a colour, side, size or count that the label does not have",
}
"""Reasons for which a sentence of a model is not used."""

_LABEL = re.compile(r"[^\W\d_]+(?:[ '\-][^\W\d_]+)*")
_MAX_LABEL_CHARS = 60
_QUOTES = re.compile(r"[\"“”„«»‹›`]|(?<![^\W\d_])['‘’]|['‘’](?![^\W\d_])")
_CHARACTERS = re.compile(r"(?:[^\W\d_]|[ ,;.?'’\-])+")
_REFUSAL = re.compile(
    r"\b(?:sorry|apologi[sz]e|cannot|can['’]?t|won['’]?t|unable|not able|as an? (?:ai|assistant|language)|"
    r"language model|i['’]m an? |assist you|here (?:are|is)\b|of course|certainly|^sure\b)",
    re.IGNORECASE,
)
_PLACE = word_set(
    "where,place,places,spot,spots,point,points,part,parts,location,locations,area,areas,position,region,touch,touches,"
    "touched,touching,contact,contacts"
)
_CLAIMS = word_set(
    "red,green,blue,yellow,orange,black,white,brown,grey,gray,pink,purple,silver,golden,left,right,leftmost,rightmost,"
    "top,bottom,upper,lower,front,rear,middle,center,centre,nearest,farthest,big,bigger,biggest,large,larger,largest,"
    "small,smaller,smallest,tall,short,tiny,huge,two,three,four,five,six,seven,eight,nine,ten,both,first,second,"
    "third,wooden,metal,metallic,plastic,shiny,transparent,broken,handle,knob,lid,rim,edge"
)
"""Words that claim what a verb and a noun do not say, parts of the object among them."""


def can_ask(verb: str, noun: str) -> bool:
    """Whether a label is plain words, so that sentences about it can be checked."""
    return all(_LABEL.fullmatch(text) and len(text) <= _MAX_LABEL_CHARS for text in (verb, noun))


def refusal(sentence: str, verb: str, noun: str) -> str | None:
    """Why a sentence is not used for the label (a key of REFUSED); None if it is. The label is one that `can_ask`
    allows, in lower case."""
    text = sentence.strip()
    label = frozenset(_words(f"{verb} {noun}"))
    words = _words(text)
    if not text:
        return "empty"
    if _REFUSAL.search(text):
        return "refusal"
    if _QUOTES.search(text):
        return "quotes"
    if any(character.isdigit() for character in text):
        return "numbers"
    if not _CHARACTERS.fullmatch(text):
        return "characters"
    if text[-1] not in ".?" or re.search(r"[.?]", text[:-1]):
        return "not_one_sentence"
    if not MIN_WORDS <= len(words) <= MAX_WORDS:
        return "length"
    if not _names_object(words, noun):
        return "no_object"
    if not any(_names_action(words, action) for action in synonyms(verb)):
        return "no_action"
    if _PLACE.isdisjoint(words):
        return "no_place"
    allowed = label | {word for action in synonyms(verb) for word in action.words.split()}
    if not (_CLAIMS & frozenset(words)) <= allowed:
        return "added_claim"
    return None


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’\-][^\W_]+)*", text.lower())


def _names_object(words: list[str], noun: str) -> bool:
    """Whether the words of the noun stand in a row; the last one in either number."""
    *before, last = _words(noun)
    forms = singular_and_plural(last)
    size = len(before)
    return any(
        words[place : place + size] == before and words[place + size] in forms for place in range(len(words) - size)
    )


def _names_action(words: list[str], action: Action) -> bool:
    verb = action.verb
    forms = {verb, ing_form(verb), f"{verb}s", f"{verb}es", f"{verb}ed", f"{verb}d"}
    if verb.endswith("y"):
        forms |= {f"{verb[:-1]}ies", f"{verb[:-1]}ied"}
    needed = [*action.particle.split(), *action.preposition.split()]
    for place, word in enumerate(words):
        if word not in forms:
            continue
        after = words[place + 1 : place + 1 + _PARTICLE_WITHIN]
        if all(each in after for each in needed):
            return True
    return False
