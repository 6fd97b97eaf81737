"""A question and answer about an image, and the text format of points, boxes and choices.

Coordinates are relative to the raw image, in [0, 1); boxes are x1, y1, x2, y2. Numbers are always printed with three
decimals and never reach 1: the scorers of Where2Place (github.com/wentaoyuan/RoboPoint,
robopoint/eval/summarize_vqa.py) and RefSpatial-Bench read a tuple of bare integers as pixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pokevla.errors import DataError

Category = Literal["general", "grounding", "affordance", "reasoning"]
AnswerKind = Literal["point", "box", "text", "trace", "choice"]
CATEGORIES: tuple[Category, ...] = ("general", "grounding", "affordance", "reasoning")
Point = tuple[float, float]
Box = tuple[float, float, float, float]

LARGEST = 0.999
MAX_IMAGES = 4
"""Images of one sample. Each takes as many tokens as the vision towers have patches: 256 in the paper's model. Ours."""
REPLY_WITH: dict[str, str] = {
    "point": "Reply with a list of (x, y) pairs scaled to 0-1.",
    "box": "Reply with one box (x1, y1, x2, y2) scaled to 0-1.",
    "trace": "Reply with an ordered list of (x, y) pairs scaled to 0-1.",
    "choice": "Reply with the option letter only.",
    "text": "Reply with a word or a short phrase.",
}
"""Appended to each question to state the answer format; without it a small model confuses the formats."""


def image_names(count: int) -> tuple[str, ...]:
    """Members with the images of a sample, in order: `jpg`, `1.jpg`, `2.jpg`."""
    return tuple(f"{number}.jpg" if number else "jpg" for number in range(count))


_NUMBER = r"\s*(\d*\.\d+|[01])\s*"
_POINT = re.compile(rf"\({_NUMBER},{_NUMBER}\)")
_BOX = re.compile(rf"\({_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\)")
_CHOICE = re.compile(r"^\s*\(?([A-Z])\)?\s*(?:[.:)]|$)")


def quantise(value: float) -> float:
    """A coordinate as it appears in text: three decimals, in [0, 0.999]."""
    return round(min(max(value, 0.0), LARGEST), 3)


def format_points(points: Sequence[Sequence[float]]) -> str:
    """Points as text: `[(0.412, 0.633)]`."""
    return _format(points)


def format_boxes(boxes: Sequence[Sequence[float]]) -> str:
    """Boxes as text: `[(0.100, 0.200, 0.350, 0.480)]`."""
    return _format(boxes)


def _format(tuples: Sequence[Sequence[float]]) -> str:
    return "[" + ", ".join("(" + ", ".join(f"{quantise(v):.3f}" for v in t) + ")" for t in tuples) + "]"


def parse_points(text: str) -> list[Point]:
    """Points in a reply, in order; empty if there are none. Pairs outside [0, 1] are ignored."""
    pairs = [(float(x), float(y)) for x, y in _POINT.findall(text)]
    return [p for p in pairs if max(p) <= 1.0]


def parse_boxes(text: str) -> list[Box]:
    """Boxes in a reply, in order; empty if there are none. Boxes with swapped corners are ignored."""
    boxes = [(float(a), float(b), float(c), float(d)) for a, b, c, d in _BOX.findall(text)]
    return [b for b in boxes if max(b) <= 1.0 and b[0] <= b[2] and b[1] <= b[3]]


def parse_choice(text: str) -> str | None:
    """The letter at the start of a reply, as in `B`, `(B)`, `B.` or `B) left`; None if there is none."""
    match = _CHOICE.match(text)
    return match.group(1) if match else None


@dataclass(frozen=True)
class VLMRecord:
    """One question and answer. `to_json()` is the JSON member of the sample."""

    key: str
    source: str
    subset: str
    category: Category
    task: str
    answer_kind: AnswerKind
    question: str
    answer: str
    split: str
    width: int
    height: int
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    choice: str | None = None
    license: str = ""
    orig: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    further_turns: tuple[tuple[str, str], ...] = ()
    """Questions and answers that follow in the same conversation."""
    num_images: int = 1
    """Width and height are those of the first; points and boxes are fractions of the one that the text is about."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON, with the answer's numbers under `target`."""
        values = asdict(self)
        if not values["further_turns"]:  # datasets of single questions keep their bytes
            del values["further_turns"]
        if values["num_images"] <= 1:  # and so do those of at most one image
            del values["num_images"]
        values["target"] = {
            "points": [list(p) for p in values.pop("points")],
            "boxes": [list(b) for b in values.pop("boxes")],
            "choice": values.pop("choice"),
        }
        return values

    def check(self) -> None:
        """Raise DataError unless parsing the answer gives exactly its target."""
        parsed = {
            "point": lambda: tuple(parse_points(self.answer)) == self.points,
            "trace": lambda: tuple(parse_points(self.answer)) == self.points,
            "box": lambda: tuple(parse_boxes(self.answer)) == self.boxes,
            "choice": lambda: parse_choice(self.answer) == self.choice,
            "text": lambda: bool(self.answer.strip()),
        }
        if not parsed[self.answer_kind]():
            raise DataError(f"record {self.key}: the answer {self.answer!r} does not parse back to its target.")
        if not self.question.strip():
            raise DataError(f"record {self.key} has no question.")


def point_record(points: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Answer and target fields of a record whose answer is points."""
    exact = tuple((quantise(p[0]), quantise(p[1])) for p in points)
    return {"answer_kind": "point", "answer": format_points(exact), "points": exact}


def box_record(box: Sequence[float]) -> dict[str, Any]:
    """Answer and target fields of a record whose answer is one box."""
    exact = (quantise(box[0]), quantise(box[1]), quantise(box[2]), quantise(box[3]))
    return {"answer_kind": "box", "answer": format_boxes([exact]), "boxes": (exact,)}


def choice_record(letter: str) -> dict[str, Any]:
    """Answer and target fields of a record whose answer is one letter."""
    return {"answer_kind": "choice", "answer": letter, "choice": letter}


def text_record(text: str) -> dict[str, Any]:
    """Answer fields of a record whose answer is free text."""
    return {"answer_kind": "text", "answer": text}
