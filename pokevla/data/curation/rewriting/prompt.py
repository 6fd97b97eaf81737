"""What a language model is asked about a label, and how its reply is divided into sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pokevla.data.curation.rewriting.actions import synonyms
from pokevla.data.curation.rewriting.checks import refusal
from pokevla.data.curation.rewriting.templates import TEMPLATES, fill_template

PROMPT_VERSION = 1
"""Raise it when the prompt or the checks change: answers to another version are not used."""
NUM_PHRASINGS = 4
"""How many sentences are asked for a label. Ours."""
MAX_REPLY_CHARS = 4000
"""What is read of a reply."""
SYSTEM = "You write short, plain English. You reply with the requested sentences only, one per line."
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\(?\d{1,2}[.):])\s+")
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
"""What models that reason, such as Qwen3, write before their answer. Without an end, all of it."""


@dataclass(frozen=True)
class Label:
    """A verb and a noun, as lower-case words."""

    verb: str
    noun: str


@dataclass(frozen=True)
class Phrasings:
    """What a model gave for a label: sentences that passed the checks, and how many others were refused, by reason."""

    sentences: tuple[str, ...]
    refused: tuple[tuple[str, int], ...] = ()

    @property
    def reason(self) -> str:
        """The most frequent reason; the first in the alphabet of equally frequent ones."""
        return min(self.refused, key=lambda pair: (-pair[1], pair[0]))[0] if self.refused else "empty"


NO_ANSWER = Phrasings((), (("no_answer", 1),))


def ask(label: Label) -> str:
    """The request for a label."""
    action = synonyms(label.verb)[0]
    example = fill_template(next(iter(TEMPLATES)), label.verb, label.noun)
    return (
        f"A picture shows the {label.noun}. Write {NUM_PHRASINGS} different questions or requests, one per line, that "
        f"ask for the place where a hand has to touch the {label.noun} to {action.on_pronoun(label.noun)}.\n"
        f"Each line is one sentence of 4 to 25 words that names the {label.noun}, the action ({action.words}), and "
        "asks for a place, spot or point. Add no colour, side, size, number or part, and no quotation marks.\n"
        f"For example: {example}"
    )


def read_reply(reply: str | None, label: Label) -> Phrasings:
    """The sentences of a reply that pass the checks, each once. None: the model gave no answer."""
    if reply is None:
        return NO_ANSWER
    accepted: dict[str, None] = {}
    refused: dict[str, int] = {}
    said = _THINKING.sub("", reply)
    lines = [_BULLET.sub("", line).strip() for line in said[:MAX_REPLY_CHARS].splitlines()]
    for line in [line for line in lines if line][: 2 * NUM_PHRASINGS]:
        code = refusal(line, label.verb, label.noun)
        if code is None:
            accepted[line] = None
        else:
            refused[code] = refused.get(code, 0) + 1
    if not accepted and not refused:
        refused["empty"] = 1
    return Phrasings(tuple(accepted)[:NUM_PHRASINGS], tuple(sorted(refused.items())))
