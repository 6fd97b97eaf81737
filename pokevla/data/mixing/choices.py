"""Multiple-choice questions: finding their options, and giving the options other places.

Options stand in a row, `(A) cup (B) bowl`, or one in each line, `A. cup`. Only their texts change places; letters and
what lies between options stay. What cannot be told apart without doubt is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from pokevla.data.records import REPLY_WITH

LETTERS = "ABCDEFGH"
_INLINE = re.compile(r"\(([A-H])\)\s*")
_LINE = re.compile(r"^([A-H])[.)][ \t]+", re.MULTILINE)
_BETWEEN = re.compile(r"(?:[\s,;]|\b(?:or|and)\s*$)*$")
"""What ends an option in a row, but does not belong to it: `(A) cup, or (B) bowl`."""
_SENTENCE_END = re.compile(r"[.?!:]\s+\S")
_ENDING = re.compile(r"\s*[.?!]?\s*$")
_MENTION = re.compile(
    r"\([A-H]\)|\b[B-H]\b(?!')|\b(?:option|choice|answer|both|letter|and|or)\s+A\b|\bA\s+(?:and|or|nor|is\s+(?:correct|right))\b"
)
"""A letter of an option in a text; a plain `A` is mostly the article."""
_BY_PLACE = re.compile(
    r"\b(?:all|none|both|neither|any|either)\s+of\s+(?:the|these|them|those)\b|\bof the above\b|"
    r"\b(?:first|last|previous|former|latter|other)\s+(?:option|choice|answer)s?\b",
    re.IGNORECASE,
)
"""A text whose meaning depends on the places of options."""
_ANSWER = re.compile(r"(\(?)([A-H])(\)?[.:)]?)(?:\s+(\S.*))?", re.DOTALL)


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question whose options can be told apart."""

    spans: tuple[tuple[int, int], ...]
    """Begin and end of the text of each option in the question, in order."""
    texts: tuple[str, ...]
    right: int
    """Number of the right option."""


def read_choice(record: Mapping[str, Any]) -> Choice | None:
    """The options of a record, as JSON; None if it is no multiple-choice question, or one whose options cannot be told
    apart, depend on their places, or are spoken of by letter elsewhere in the record."""
    question, answer = record["question"], record["answer"]
    letter = record["target"].get("choice")
    if record["answer_kind"] != "choice" or letter not in tuple(LETTERS):
        return None
    found = _options(question, _INLINE) or _options(question, _LINE)
    if found is None or LETTERS.index(letter) >= len(found):
        return None
    texts = tuple(question[start:end] for start, end in found)
    choice = Choice(found, texts, LETTERS.index(letter))
    written = _ANSWER.fullmatch(answer.strip())
    says_it = written is not None and written[2] == letter and written[4] in (None, texts[choice.right])
    if not says_it or len({text.casefold() for text in texts}) < len(texts):
        return None
    turns = [text for turn in record.get("further_turns", ()) for text in turn]
    around = [_without(question, found), *texts, *turns]
    return None if any(_MENTION.search(text) or _BY_PLACE.search(text) for text in around) else choice


def reordered(record: dict[str, Any], choice: Choice, place: int, seed: int) -> dict[str, Any]:
    """The record with the right option at `place`, and the others in an order drawn from seed and key.

    Question, answer and target change together. `orig.options` are the letters that the options had, in their new
    order.

    Args:
        place: number of the option, from 0 to one less than there are.
    """
    others = [number for number in range(len(choice.texts)) if number != choice.right]
    others.sort(key=lambda number: xxhash.xxh3_64_intdigest(f"{record['key']}\0{number}".encode(), seed=seed % 2**64))
    order = [*others[:place], choice.right, *others[place:]]
    question, pieces, end = record["question"], [], 0
    for (start, stop), number in zip(choice.spans, order, strict=True):
        pieces += [question[end:start], choice.texts[number]]
        end = stop
    letter = LETTERS[place]
    written = _ANSWER.fullmatch(record["answer"].strip())
    if written is None:
        raise RuntimeError("read_choice gave a choice for an answer without a letter")
    text = f" {written[4]}" if written[4] else ""
    return {
        **record,
        "question": "".join([*pieces, question[end:]]),
        "answer": f"{written[1]}{letter}{written[3]}{text}",
        "target": {**record["target"], "choice": letter},
        "orig": {**(record.get("orig") or {}), "options": "".join(LETTERS[number] for number in order)},
    }


def _options(question: str, marker: re.Pattern[str]) -> tuple[tuple[int, int], ...] | None:
    """Begin and end of each option behind its marker; None unless there are two or more, lettered in order."""
    marks = list(marker.finditer(question))
    if len(marks) < 2 or "".join(mark[1] for mark in marks) != LETTERS[: len(marks)]:
        return None
    suffix = REPLY_WITH["choice"]
    limit = len(question) - len(suffix) if question.endswith(suffix) else len(question)
    ends = [*(mark.start() for mark in marks[1:]), limit]
    newline = question.find("\n", marks[-1].end(), limit)
    ends[-1] = newline if newline >= 0 else limit
    spans = []
    for mark, end in zip(marks, ends, strict=True):
        between = _BETWEEN.search(question, mark.end(), end)
        spans.append((mark.end(), between.start() if between is not None else end))
    texts = [question[start:end] for start, end in spans]
    start, end = spans[-1]
    if not any(_ends_a_sentence(text) for text in texts[:-1]):  # the mark ends the question, not the option
        ending = _ENDING.search(question, start, end)
        spans[-1] = (start, ending.start() if ending is not None else end)
    doubtful = any("\n" in text or _SENTENCE_END.search(text) for text in texts)
    return None if doubtful or any(end <= start for start, end in spans) else tuple(spans)


def _ends_a_sentence(text: str) -> bool:
    return text.rstrip().endswith((".", "?", "!"))


def _without(question: str, spans: Sequence[tuple[int, int]]) -> str:
    """The question without its options and their markers."""
    first, last = spans[0][0], spans[-1][1]
    marks = list(_INLINE.finditer(question, 0, first)) or list(_LINE.finditer(question, 0, first))
    return question[: marks[-1].start() if marks else first] + " " + question[last:]


def yes_or_no(record: Mapping[str, Any], choice: Choice | None) -> str | None:
    """`yes` or `no` if that is the answer of a record of one turn, in a word or as an option; otherwise None."""
    if record.get("further_turns"):
        return None
    if choice is not None:
        word = choice.texts[choice.right]
    elif record["answer_kind"] == "text":
        word = record["answer"]
    else:
        return None
    word = word.strip().rstrip(".").casefold()
    return word if word in ("yes", "no") else None
