"""The question for a label: a phrasing of a language model, or a template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pokevla.data.curation.rewriting.prompt import Label, Phrasings
from pokevla.data.curation.rewriting.templates import choose_template
from pokevla.data.randomness import raw


@dataclass(frozen=True)
class Wording:
    """How a source words its questions."""

    seed: int = 0
    phrasings: Mapping[Label, Phrasings] | None = field(default=None, repr=False)
    """Of all labels of the source. None: templates only."""

    def question(self, verb: str, noun: str, key: str) -> tuple[str, dict[str, Any]]:
        """The question for a label in lower-case words, and where it comes from, for the record: a pure function of the
        seed, the phrasings and `key`, which names the record."""
        by_model = self.phrasings[Label(verb, noun)] if self.phrasings is not None else None
        if by_model is not None and by_model.sentences:
            place = int(raw(1, self.seed, "affordance phrasing", key)[0]) % len(by_model.sentences)
            return by_model.sentences[place], {"by": "model", "phrasing": place, "seed": self.seed}
        name, sentence = choose_template(verb, noun, self.seed, key)
        origin = {"by": "template", "template": name, "seed": self.seed}
        return sentence, origin if by_model is None else {**origin, "because": by_model.reason}
