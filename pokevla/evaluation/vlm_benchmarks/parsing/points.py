"""How the official scorers read points and boxes in a reply, re-implemented from their rules, quirks included.

Sources: github.com/wentaoyuan/RoboPoint, robopoint/eval/summarize_vqa.py; github.com/Zhoues/RoboRefer,
Evaluation/summarize_acc.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from pokevla.evaluation.vlm_benchmarks.parsing.regions import Reading, Region, point_region

PointParser = Callable[[str, int, int], Reading]
"""(reply, width, height of the mask) -> what was read"""

WHERE2PLACE_SIZE = (640, 480)
"""Width and height that the scorer of Where2Place assumes for every image."""

# No blank after the opening bracket or before a comma, no exponent, no number that begins with a dot.
_NUMBER = r"[-+]?\d+(?:\.\d*)?"
_TUPLE = re.compile(rf"\(({_NUMBER}(?:,\s*{_NUMBER})*)\)")
_MOLMO = re.compile(r'x\d+="(-?\d+(?:\.\d*)?)"\s+y\d+="(-?\d+(?:\.\d*)?)"')
_FENCED = re.compile(r"```(?:\w+)?\n(.*?)```", re.DOTALL)
_UNREADABLE = (TypeError, ValueError, OverflowError, RecursionError, KeyError)
"""What a reply can raise in a scorer. They catch everything, and leave the question out of the mean."""


def where2place_tuples(reply: str, width: int, height: int) -> Reading:
    """Tuples as Where2Place's scorer reads them; `width` and `height` are not used, it assumes `WHERE2PLACE_SIZE`.

    A pair is relative if either number has a dot, else in pixels. Four numbers are a box x0, y0, x1, y1, relative if
    the first has a dot; a box of whole and broken numbers raises, and negative corners count from the other end of the
    image. Other lengths are ignored.
    """
    width, height = WHERE2PLACE_SIZE
    regions, in_pixels = [], False
    try:
        for numbers in _tuples(reply):
            if len(numbers) == 2:
                region, pixels = _pair(numbers, width, height)
            elif len(numbers) == 4:
                region, pixels = _sliced_box(numbers, width, height)
            else:
                continue
            regions.append(region)
            in_pixels |= pixels
    except _UNREADABLE as error:
        return Reading(skipped=type(error).__name__)
    return Reading(tuple(regions), in_pixels=in_pixels)


def refspatial_tuples(reply: str, width: int, height: int) -> Reading:
    """Tuples as RefSpatial-Bench's scorer reads those of RoboPoint, RoboRefer, GPT-4o and Claude.

    Pairs as Where2Place's, with the size of the mask. Boxes are always relative; one whose corners are swapped raises.
    """
    regions, in_pixels = [], False
    try:
        for numbers in _tuples(reply):
            if len(numbers) == 2:
                region, pixels = _pair(numbers, width, height)
                in_pixels |= pixels
            elif len(numbers) == 4:
                region = _ordered_box(*_scaled(numbers, width, height))
            else:
                continue
            regions.append(region)
    except _UNREADABLE as error:
        return Reading(skipped=type(error).__name__)
    return Reading(tuple(regions), in_pixels=in_pixels)


def refspatial_pixels(reply: str, width: int, height: int) -> Reading:
    """Tuples as RefSpatial-Bench's scorer reads those of Qwen and RoboBrain: pixels, whatever they look like.

    A pair with a broken number stops that scorer as a whole (it indexes with a float); here it is a failed reply.
    """
    regions = []
    for numbers in _tuples_or_none(reply):
        if numbers is None or (len(numbers) in (2, 4) and not all(isinstance(number, int) for number in numbers)):
            return Reading(skipped="TypeError")
        if len(numbers) == 2:
            regions.append(point_region(int(numbers[0]), int(numbers[1])))
        elif len(numbers) == 4:
            x0, y0, x1, y1 = (int(number) for number in numbers)
            if x1 < x0 or y1 < y0:
                return Reading(skipped="ValueError")
            regions.append(Region(x0, y0, x1, y1))
    return Reading(tuple(regions), in_pixels=bool(regions))


def refspatial_molmo(reply: str, width: int, height: int) -> Reading:
    """Molmo's XML of several points, `x1="10.5" y1="20"`, in percent. `x="..."` of a single point is not read."""
    try:
        points = [(int(float(x) / 100 * width), int(float(y) / 100 * height)) for x, y in _MOLMO.findall(reply)]
    except _UNREADABLE as error:
        return Reading(skipped=type(error).__name__)
    return Reading(tuple(point_region(x, y) for x, y in points))


def refspatial_gemini(reply: str, width: int, height: int) -> Reading:
    """Gemini's fenced JSON, a list of `{"point": [y, x]}` on a grid of 1000. Text that is not JSON gives no point."""
    fenced = _FENCED.search(reply)
    if fenced is None:
        return Reading()
    try:
        content: Any = json.loads(fenced[1].strip())
    except json.JSONDecodeError:
        return Reading()
    except (RecursionError, ValueError) as error:
        return Reading(skipped=type(error).__name__)
    try:
        points = [item["point"] for item in content if "point" in item]
        pairs = [point for point in points if isinstance(point, list) and len(point) == 2]
        regions = [point_region(int(x / 1000 * width), int(y / 1000 * height)) for y, x in pairs]
    except _UNREADABLE as error:
        return Reading(skipped=type(error).__name__)
    return Reading(tuple(regions))


def _tuples(reply: str) -> Iterator[list[int | float]]:
    """The numbers of every bracketed tuple. ValueError for a whole number of more than 4300 digits."""
    for text in _TUPLE.findall(reply):
        yield [float(number) if "." in number else int(number) for number in text.split(",")]


def _tuples_or_none(reply: str) -> list[list[int | float] | None]:
    try:
        return list(_tuples(reply))
    except ValueError:
        return [None]


def _pair(numbers: list[int | float], width: int, height: int) -> tuple[Region, bool]:
    x, y = numbers
    if isinstance(x, int) and isinstance(y, int):
        return point_region(x, y), True
    return point_region(int(x * width), int(y * height)), False  # int() rounds towards 0: -0.001 is still inside


def _scaled(numbers: list[int | float], width: int, height: int) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = numbers
    return int(x0 * width), int(y0 * height), int(x1 * width), int(y1 * height)


def _sliced_box(numbers: list[int | float], width: int, height: int) -> tuple[Region, bool]:
    """A box that the scorer cuts out of an array by slices. TypeError for a mix that it does not scale."""
    in_pixels = isinstance(numbers[0], int)
    if in_pixels and not all(isinstance(number, int) for number in numbers):
        raise TypeError
    x0, y0, x1, y1 = (int(n) for n in numbers) if in_pixels else _scaled(numbers, width, height)
    left, right, _ = slice(x0, x1).indices(width)
    top, bottom, _ = slice(y0, y1).indices(height)
    return Region(left, top, right, bottom), in_pixels


def _ordered_box(x0: int, y0: int, x1: int, y1: int) -> Region:
    """A box that the scorer makes as an array of this size. ValueError if a side is negative."""
    if x1 < x0 or y1 < y0:
        raise ValueError
    return Region(x0, y0, x1, y1)
