"""Rules for texts, and reading the numbers in them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from pokevla.data.curation.rules import Reject
from pokevla.data.records import REPLY_WITH, AnswerKind

_LOOP = re.compile(r"(?<!\S)(\S{1,64})(?:\s+\1(?!\S)){8,}")
_PATH_LOOP = re.compile(r"(?<![^\s/])([^\s/]{1,64})(?:/\1(?![^\s/])){3,}|/{9,}")
"""A name that loops: `a/a/a/a`."""
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)"
_TUPLE = re.compile(rf"[(\[]\s*({_NUMBER}(?:\s*,\s*{_NUMBER})+)\s*,?\s*[)\]]", re.IGNORECASE)
_ONLY_TUPLES = re.compile(r"[\s,\[\]().]*")
_FORMAT_HINT = re.compile(r"tuple|\(x\d?\s*,|normali[sz]ed|scaled to 0-1|coordinates", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.?!])\s+")
_THINK = re.compile(r"</?(think|answer)>")
_SPECIAL_TOKEN = re.compile(r"<[|\uff5c][^\s<>|\uff5c]{1,64}[|\uff5c]>|</?tool_call>")
"""Qwen2.5's tokens (its tokenizer_config.json), and those of the same form: Llama 3's, DeepSeek's with wide bars."""
LIST_OF_BOXES = "Reply with a list of boxes (x1, y1, x2, y2) scaled to 0-1."


def check_text(text: object, max_chars: int) -> str:
    """A question or answer without space around it. Raises Reject."""
    if not isinstance(text, str):
        raise Reject("row_layout", "a turn is no text")
    if len(text) > max_chars:
        raise Reject("text_too_long", f"{len(text)} characters")
    text = text.strip()
    if not text:
        raise Reject("text_empty")
    if has_surrogate(text):
        raise Reject("text_not_utf8", "half of a surrogate pair")
    refuse_special_tokens(text)
    if _LOOP.search(text) or _PATH_LOOP.search(text):
        raise Reject("text_loop", text[:60])
    return text


def refuse_special_tokens(text: str) -> None:
    """Raise Reject if a tokenizer would read a part of the text as a control token: a turn would end inside of it."""
    token = _SPECIAL_TOKEN.search(text)
    if token is not None:
        raise Reject("special_token", token[0])


def has_surrogate(text: str) -> bool:
    """Whether a text holds what UTF-8 cannot: `\\ud800` in JSON."""
    return any("\ud800" <= character <= "\udfff" for character in text) if not text.isascii() else False


def read_tuples(text: str, width: int) -> list[tuple[float, ...]]:
    """The tuples in an answer that is nothing but tuples of `width` numbers.

    Raises Reject: `answer_format`, or `coord_nan` for a number that is not finite.
    """
    found = [tuple(float(n) for n in match[1].split(",")) for match in _TUPLE.finditer(text)]
    if not found or not _ONLY_TUPLES.fullmatch(_TUPLE.sub("", text)) or any(len(each) != width for each in found):
        raise Reject("answer_format", text[:60])
    if not all(math.isfinite(number) for each in found for number in each):
        raise Reject("coord_nan", text[:60])
    return found


def tuple_width(text: str) -> int:
    """How many numbers the tuples have, if the text is nothing but tuples of one width; otherwise 0."""
    widths = {match[1].count(",") + 1 for match in _TUPLE.finditer(text)}
    return widths.pop() if len(widths) == 1 and _ONLY_TUPLES.fullmatch(_TUPLE.sub("", text)) else 0


def check_numbers(tuples: object, width: int) -> list[tuple[float, ...]]:
    """Lists of `width` finite numbers, from JSON. Raises Reject."""
    if not isinstance(tuples, Sequence) or isinstance(tuples, str) or not tuples:
        raise Reject("row_layout", "no coordinates")
    result = []
    for each in tuples:
        if not isinstance(each, Sequence) or isinstance(each, str) or len(each) != width:
            raise Reject("row_layout", f"coordinates {str(each)[:40]}")
        if any(isinstance(n, bool) or not isinstance(n, int | float) for n in each):
            raise Reject("coord_nan" if None in each else "row_layout", f"coordinates {str(each)[:40]}")
        try:
            numbers = tuple(float(n) for n in each)
        except OverflowError:
            raise Reject("coord_nan", "a huge integer") from None
        if not all(map(math.isfinite, numbers)):
            raise Reject("coord_nan", str(each)[:40])
        result.append(numbers)
    return result


def with_suffix(question: str, kind: AnswerKind, *, several_boxes: bool = False, rewrite: bool = False) -> str:
    """The question with one sentence that states the form of the answer, unless it says so itself.

    Args:
        rewrite: remove what the question says about the form, which the answer no longer has.
    """
    if kind == "text":
        return question
    if rewrite:
        kept = [part for part in _SENTENCE.split(question) if not _FORMAT_HINT.search(part)]
        question = " ".join(kept) or question
    elif kind in ("point", "box", "trace") and _FORMAT_HINT.search(question):
        return question
    if kind == "choice" and "letter" in question:
        return question
    sentence = LIST_OF_BOXES if several_boxes else REPLY_WITH[kind]
    return question if question.endswith(sentence) else f"{question} {sentence}"


def split_thinking(answer: str) -> tuple[str, str]:
    """(reasoning, answer) of `<think>...</think><answer>...</answer>`; without tags, ("", answer).

    Raises Reject: the tags are not balanced.
    """
    tags = [match[0] for match in _THINK.finditer(answer)]
    if not tags:
        return "", answer.strip()
    if tags not in (
        ["<think>", "</think>", "<answer>", "</answer>"],
        ["<answer>", "</answer>"],
        ["<think>", "</think>"],
    ):
        raise Reject("think_tags", " ".join(tags)[:60])
    thinking = answer.split("<think>", 1)[1].split("</think>", 1)[0] if "<think>" in tags else ""
    if "<answer>" in tags:
        rest = answer.split("<answer>", 1)[1].split("</answer>", 1)[0]
    else:
        rest = answer.split("</think>", 1)[1]
    return thinking.strip(), rest.strip()
