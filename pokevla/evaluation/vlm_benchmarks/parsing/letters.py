"""How the letter of an option is read in a reply: by the official scorers of CV-Bench, and strictly.

Source of the official rules: github.com/cambrian-mllm/cambrian, eval/eval/{ade,coco,omni}/*_test.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_KEYWORDS = ("answer is", "answer is:", "answer:")
_ENDS = {"ADE20K": ".", "COCO": ".", "Omni3D": ".:,"}
"""Source -> characters that its scorer removes from the end of a reply."""

_END_OF_THOUGHTS = "</think>"
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_LEAD = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+|final\s+|best\s+)?(?:answer|option|choice)(?:\s+is)?\s*[:=]?\s*)+", re.IGNORECASE
)
_LETTER = re.compile(r"[\s*_`\"'\[({$]*(?:\\boxed\{\s*)?([A-Za-z])([\s*_`\"'\])}$.:,]*)(.*)", re.DOTALL)
_EDGES = " \t\n.,:;*_`\"'()[]{}$"


def official_letter(reply: str, source: str) -> str:
    """The first character that Cambrian's scorer takes for the answer, in lower case; empty for an empty reply.

    It keeps what follows the last "answer is" or "answer:", removes dots and round brackets around it, and takes one
    character: `[B]` is `[`, `A chair` is `a`. `source` is ADE20K, COCO or Omni3D.
    """
    text = reply.lower().strip()
    for keyword in _KEYWORDS:
        text = text.split(keyword)[-1]
    return text.strip().rstrip(_ENDS[source]).lstrip("(").rstrip(")")[:1]


def official_choice_score(reply: str, source: str, choices: Sequence[str], letter: str) -> float:
    """1 if Cambrian's scorer takes the reply for right, else 0. `letter` is the right option, A, B, ...

    For Omni3D it also compares with the text of the option, but after cutting the reply to one character.
    """
    read = official_letter(reply, source)
    if read == letter.lower():
        return 1.0
    return float(source == "Omni3D" and read == choices[option_index(letter)])


def strict_letter(reply: str, choices: Sequence[str]) -> str | None:
    """The letter of a reply that leaves no doubt, A, B, ...; None for any other.

    Accepted are a letter of one of the `choices` with marks around it, or followed by the text of just this option;
    also after words such as "The answer is", and in `<answer>` tags. `A chair` and `Both A and B` are none.
    What stands before `</think>` is left out.
    """
    text = reply.rpartition(_END_OF_THOUGHTS)[2]
    tagged = _ANSWER.findall(text)
    text = " ".join((tagged[-1] if tagged else text).split()).lstrip("*_ ")
    lead = _LEAD.match(text)
    if lead is not None:
        text = text[lead.end() :]
    found = _LETTER.fullmatch(text)
    if found is None:
        return None
    letter, marks, rest = found[1].upper(), found[2], found[3]
    if option_index(letter) >= len(choices):
        return None
    if not rest.strip(_EDGES):
        return letter
    named = rest.strip(_EDGES).casefold() == choices[option_index(letter)].strip(_EDGES).casefold()
    return letter if named and marks.strip() else None


def option_index(letter: str) -> int:
    """0 for A, 1 for B, ..."""
    return ord(letter.upper()) - ord("A")


def option_letter(index: int) -> str:
    """A for 0, B for 1, ..."""
    return chr(ord("A") + index)
