"""Scores one reply, by the rules of the benchmark and strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pokevla.evaluation.vlm_benchmarks.parsing.letters import (
    official_choice_score,
    official_letter,
    option_index,
    strict_letter,
)
from pokevla.evaluation.vlm_benchmarks.parsing.points import PointParser
from pokevla.evaluation.vlm_benchmarks.parsing.regions import region_score
from pokevla.evaluation.vlm_benchmarks.reading.items import Item

MOST_REGIONS = 50
"""Points and boxes of a reply that are recorded. All are scored."""


@dataclass(frozen=True)
class Reply:
    """What a model has answered."""

    text: str
    truncated: bool = False
    """It was cut off at the largest number of tokens."""


@dataclass(frozen=True)
class Judged:
    """A reply with its scores: a line of `answers.jsonl`."""

    part: str
    id: str
    image: str
    question: str
    prompt: str
    reply: str
    truncated: bool
    official: float | None
    """In [0, 1]; None if the official scorer leaves the question out."""
    strict: float
    """In [0, 1]; 0 if nothing could be read."""
    failure: str | None
    groups: Mapping[str, str]
    points: tuple[tuple[float, float], ...] = ()
    """Relative to the image."""
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    box_area: float | None = None
    """Mean area of the boxes, as a share of the image. A tiny box scores like a point."""
    in_pixels: bool = False
    """Whole numbers were taken as pixels."""
    choices: tuple[str, ...] = ()
    expected: str | None = None
    official_letter: str | None = None
    strict_letter: str | None = None


def judge_pointing(part: str, item: Item, reply: Reply, parse: PointParser) -> Judged:
    """Score points and boxes by the mask. Strictly, the same reading counts 0 where the official scorer skips it."""
    mask = item.mask
    if mask is None:
        raise ValueError(f"question {item.id} has no mask")
    height, width = mask.shape
    reading = parse(reply.text, width, height)
    score = region_score(reading.regions, mask)
    points, boxes, areas = [], [], []
    for region in reading.regions:
        if region.area == 1:
            points.append((_ratio(region.x0 + 0.5, width), _ratio(region.y0 + 0.5, height)))
        elif region.area > 1:
            corners = (region.x0, width), (region.y0, height), (region.x1, width), (region.y1, height)
            boxes.append(tuple(_ratio(value, size) for value, size in corners))
            areas.append(region.area / (width * height))
    return Judged(
        part, item.id, item.image_name, item.question, item.prompt, reply.text, reply.truncated,
        official=None if reading.skipped is not None else score,
        strict=0.0 if reading.failure is not None else score,
        failure=reading.failure,
        groups=item.groups,
        points=tuple(points[:MOST_REGIONS]),
        boxes=tuple(boxes[:MOST_REGIONS]),
        box_area=sum(areas) / len(areas) if areas else None,
        in_pixels=reading.in_pixels,
    )  # fmt: skip


def judge_choosing(part: str, item: Item, reply: Reply) -> Judged:
    """Score the letter of an option, as Cambrian's scorer of the question's source does, and without doubt."""
    if item.letter is None:
        raise ValueError(f"question {item.id} has no letter")
    source = item.groups["source"]
    read, certain = official_letter(reply.text, source), strict_letter(reply.text, item.choices)
    names_option = read.isascii() and read.isalpha() and option_index(read) < len(item.choices)
    return Judged(
        part, item.id, item.image_name, item.question, item.prompt, reply.text, reply.truncated,
        official=official_choice_score(reply.text, source, item.choices, item.letter),
        strict=float(certain == item.letter),
        failure=None if certain is not None else "no letter without doubt",
        groups=item.groups,
        choices=item.choices,
        expected=item.letter,
        official_letter=read.upper() if names_option else None,
        strict_letter=certain,
    )  # fmt: skip


def _ratio(value: float, size: int) -> float:
    """`value / size`, bounded: a wild reply has numbers that no float holds."""
    return round(min(max(value, -10.0 * size), 10.0 * size) / size, 4)
