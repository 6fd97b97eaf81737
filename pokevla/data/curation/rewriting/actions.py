"""Verbs of labels with their nouns: phrasal verbs, synonyms, and which preposition belongs where."""

from __future__ import annotations

from dataclasses import dataclass

from pokevla.data.curation.rewriting.grammar import ing_form, is_plural, word_set

_PARTICLES = word_set("on,off,up,down,out,in,away,over,around,back,apart,together,open,aside,through,along")
_AFTER_NOUN = word_set("over,around,back,apart,together,open,aside,through,along")
"""Particles that follow the noun: `pull the drawer open`."""
_MOVED_TO = {"into": "in", "onto": "on", "out of": "out", "from": "", "to": ""}
"""Prepositions whose place is not in the label: `put-into` with `spoon` is `put in the spoon`."""
_MOVING = word_set(
    "put,take,pour,insert,remove,place,get,throw,drop,transfer,tip,scrape,move,pick,pull,push,lift,drain,squeeze,"
    "slide,add,serve,spoon,grab,bring,return,set,turn,lower,empty,attach,screw,fold,roll"
)
_PREPOSITIONS = word_set("with,at,for,to,of,against,from,into,onto,inside,under")
_COMPLETED = {"put": "put down", "place": "set down", "lay": "lay down", "set": "set down", "hang": "hang up",
              "give": "hand over", "pick": "pick up", "plug": "plug in",
              "let go": "let go of", "hold on": "hold on to", "knock": "knock on"}  # fmt: skip
"""Verbs that are no sentence with an object alone. Of `put` the contact is that of the hand, not the goal."""
SYNONYMS: dict[str, tuple[str, ...]] = {
    "take": ("take", "pick up", "grab"),
    "pick up": ("pick up", "take", "grab"),
    "grab": ("grab", "pick up", "take"),
    "put down": ("put down", "set down"),
    "set down": ("set down", "put down"),
    "close": ("close", "shut"),
    "shut": ("shut", "close"),
    "turn on": ("turn on", "switch on"),
    "switch on": ("switch on", "turn on"),
    "turn off": ("turn off", "switch off"),
    "switch off": ("switch off", "turn off"),
    "hold": ("hold", "grip"),
    "throw": ("throw", "toss"),
    "throw away": ("throw away", "throw out"),
    "lift": ("lift", "raise"),
    "remove": ("remove", "take away"),
    "press": ("press", "push"),
    "hand over": ("hand over", "pass"),
    "wipe": ("wipe", "wipe down"),
    "wash": ("wash", "clean"),
    "rotate": ("rotate", "turn"),
    "hang up": ("hang up", "hang"),
}
"""Verbs that mean the same for the hand that touches. The first is the verb itself."""


@dataclass(frozen=True)
class Action:
    """A verb and what belongs to it."""

    verb: str
    """One word."""
    particle: str = ""
    """`on` of `turn on`: after a pronoun, and after the noun where `after_noun`."""
    preposition: str = ""
    """`with` of `play with`: always before the noun."""
    after_noun: bool = False

    @property
    def words(self) -> str:
        """The verb as in a dictionary: `turn on`."""
        return " ".join(word for word in (self.verb, self.particle, self.preposition) if word)

    def on_noun(self, noun: str, *, ing: bool = False) -> str:
        """`turn on the tap`, `pull the drawer open`, `playing with the toy`."""
        verb = ing_form(self.verb) if ing else self.verb
        order = (verb, f"the {noun}", self.particle) if self.after_noun else (verb, self.particle, f"the {noun}")
        if self.preposition:
            order = (verb, self.particle, self.preposition, f"the {noun}")
        return " ".join(word for word in order if word)

    def on_pronoun(self, noun: str) -> str:
        """`turn it on`; `them` for plural nouns."""
        pronoun = "them" if is_plural(noun) else "it"
        order = (self.verb, pronoun, self.particle)
        if self.preposition:
            order = (self.verb, self.particle, self.preposition, pronoun)
        return " ".join(word for word in order if word)


def parse_action(verb: str) -> Action:
    """The parts of a verb in lower-case words, as in `turn on`, `put into`, `turn upside down`."""
    verb = _COMPLETED.get(verb, verb)
    first, _, rest = verb.partition(" ")
    if rest in _MOVED_TO and first in _MOVING:
        return parse_action(f"{first} {_MOVED_TO[rest]}".strip())
    if not rest:
        return Action(first)
    if rest in _PARTICLES:
        return Action(first, rest, after_noun=rest in _AFTER_NOUN)
    head, _, last = rest.rpartition(" ")
    if last in _PREPOSITIONS:
        return Action(first, head, last)
    return Action(first, rest, after_noun=True)


def synonyms(verb: str) -> tuple[Action, ...]:
    """The action of a verb, and those that mean the same."""
    action = parse_action(verb)
    return tuple(parse_action(other) for other in SYNONYMS.get(action.words, (action.words,)))
