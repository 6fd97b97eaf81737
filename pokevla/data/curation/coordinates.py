"""Coordinates of published sets as fractions of the image, and the rules that they have to keep."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pokevla.data.curation.drafts import BoxOrder, Scale
from pokevla.data.curation.rules import Reject
from pokevla.data.records import Box, Point, format_boxes, quantise

TOLERANCE = 0.005
"""How far outside of the image a coordinate may be to be moved to its border."""
MIN_AREA, MAX_AREA = 1e-4, 0.95
"""Area of a box as a share of the image."""
PADDED_TOLERANCE = 0.02
"""The same for boxes of a padded square: they have two or three decimals."""
_LIMITS: dict[Scale, float] = {"pixel": 0, "unit": 1, "padded": 1, "percent": 100, "byte": 255, "thousand": 1000,
                               "thousand_yx": 1000}  # fmt: skip
_TEXT_BOX = re.compile(r"\[\s*([01](?:\.\d*)?|\.\d+)\s*,\s*([01](?:\.\d*)?|\.\d+)\s*,\s*"
                       r"([01](?:\.\d*)?|\.\d+)\s*,\s*([01](?:\.\d*)?|\.\d+)\s*\]")  # fmt: skip


def refuse_scale(values: Sequence[Sequence[float]], scale: Scale, size: tuple[int, int]) -> None:
    """Raise Reject if the coordinates are clearly in another scale: values far above 1 in a set of fractions, or only
    fractions in a set of pixels."""
    numbers = [number for each in values for number in each]
    largest = max(numbers, default=0.0)
    if scale == "pixel":
        if largest <= 1 and any(number % 1 for number in numbers) and min(size) > 2:
            raise Reject("coord_scale_mismatch", f"{numbers[:4]} in a set of pixels")
    elif largest > 2 * _LIMITS[scale]:
        raise Reject("coord_scale_mismatch", f"{numbers[:4]} in a set of 0-{_LIMITS[scale]:g}")


def to_unit(x: float, y: float, scale: Scale, size: tuple[int, int]) -> Point:
    """A point as fractions of the image of `size` (width, height), not clamped."""
    width, height = size
    if scale == "pixel":
        return x / width, y / height
    if scale == "padded":
        side = max(width, height)
        return (x * side - (side - width) / 2) / width, (y * side - (side - height) / 2) / height
    if scale == "thousand_yx":
        x, y = y, x
    return x / _LIMITS[scale], y / _LIMITS[scale]


def convert_points(points: Sequence[Sequence[float]], scale: Scale, size: tuple[int, int]) -> tuple[list[Point], bool]:
    """Points as fractions in [0, 0.999], and whether any was moved to the border.

    Raises Reject: `coord_scale_mismatch`, `coord_range`.
    """
    refuse_scale(points, scale, size)
    return _clamped([to_unit(p[0], p[1], scale, size) for p in points])


def convert_box(box: Sequence[float], scale: Scale, order: BoxOrder, size: tuple[int, int]) -> tuple[Box, bool]:
    """A box as x1, y1, x2, y2 in [0, 0.999], and whether it was moved to the border.

    Raises Reject: `coord_scale_mismatch`, `coord_range`, `box_inverted`, `box_empty`, `box_whole_image`, `box_padding`.
    """
    a, b, c, d = box
    if order == "xywh":
        c, d = a + c, b + d
    refuse_scale([box], scale, size)
    corners = [to_unit(a, b, scale, size), to_unit(c, d, scale, size)]
    if scale == "padded":
        outside = max(max(-v, v - 1) for corner in corners for v in corner)
        if outside > PADDED_TOLERANCE:
            raise Reject("box_padding", f"{tuple(box)} of {size[0]}x{size[1]}")
        corners = [(min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)) for x, y in corners]
    if corners[0][0] > corners[1][0] or corners[0][1] > corners[1][1]:
        raise Reject("box_inverted", str(tuple(box)))
    (low, high), moved = _clamped(corners)
    area = (high[0] - low[0]) * (high[1] - low[1])
    if area < MIN_AREA:
        raise Reject("box_empty", str(tuple(box)))
    if area > MAX_AREA:
        raise Reject("box_whole_image", str(tuple(box)))
    return (low[0], low[1], high[0], high[1]), moved


def _clamped(points: Sequence[Point]) -> tuple[list[Point], bool]:
    outside = max((max(-v, v - 1) for point in points for v in point), default=0.0)
    if outside > TOLERANCE:
        worst = next(p for p in points if max(max(-v, v - 1) for v in p) > TOLERANCE)
        raise Reject("coord_range", f"({worst[0]:.3f}, {worst[1]:.3f})")
    return [(quantise(x), quantise(y)) for x, y in points], outside > 0


def rewrite_padded_boxes(text: str, size: tuple[int, int]) -> str:
    """The text with each `[x1, y1, x2, y2]` of the padded square as `[(x1, y1, x2, y2)]` of the image.

    Raises what `convert_box` raises, except for the area.
    """

    def rewritten(match: re.Match[str]) -> str:
        try:
            box, _ = convert_box([float(number) for number in match.groups()], "padded", "xyxy", size)
        except Reject as reject:
            if reject.code not in ("box_empty", "box_whole_image"):
                raise
            corners = [to_unit(float(match[i]), float(match[i + 1]), "padded", size) for i in (1, 3)]
            box = (*corners[0], *corners[1])
        return format_boxes([box])

    return _TEXT_BOX.sub(rewritten, text)


def only_padded_box(text: str) -> tuple[float, float, float, float] | None:
    """The numbers of an answer that is nothing but one box `[x1, y1, x2, y2]`."""
    match = _TEXT_BOX.fullmatch(text.strip().rstrip("."))
    return (float(match[1]), float(match[2]), float(match[3]), float(match[4])) if match else None


def has_padded_box(text: str) -> bool:
    """Whether a text holds a box `[x1, y1, x2, y2]`."""
    return _TEXT_BOX.search(text) is not None
