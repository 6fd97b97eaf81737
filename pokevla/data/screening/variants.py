"""What becomes of a picture on its way into a training set: mirrored, cropped, padded to a square."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from PIL import Image, ImageOps

SIDES = (0.95, 0.9, 0.85, 0.8)
"""Sides of crops at nine places, relative to the picture."""
CENTRE_SIDES = (0.75, 0.7)
"""Sides of crops from the centre alone."""
_ACROSS, _DOWN = (("left", 0.0), ("centre", 0.5), ("right", 1.0)), (("top", 0.0), ("middle", 0.5), ("bottom", 1.0))
PADDING = {"black": (0, 0, 0), "grey": (122, 116, 104)}
"""Colours of the bars: none, and the mean of CLIP's normalisation, as LLaVA pads (llava/mm_utils.py, expand2square)."""
WHOLE = ("whole", "mirrored")
"""Variants that hold all of the picture."""


def variants(picture: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """(name, picture) of each variant of an RGB picture; first the two of WHOLE."""
    yield "whole", picture
    yield "mirrored", ImageOps.mirror(picture)
    for side in SIDES:
        for (row, y), (column, x) in product(_DOWN, _ACROSS):
            yield f"{row} {column} {side:g}", _cut(picture, side, side, x, y)
    for side in CENTRE_SIDES:
        yield f"middle centre {side:g}", _cut(picture, side, side, 0.5, 0.5)
    width, height = picture.size
    if width == height:
        return
    short = min(width, height)
    for name, place in (("start", 0.0), ("middle", 0.5), ("end", 1.0)):
        yield f"square {name}", _cut(picture, short / width, short / height, place, place)
    for name, colour in PADDING.items():
        square = Image.new("RGB", (max(width, height), max(width, height)), colour)
        square.paste(picture, ((square.width - width) // 2, (square.height - height) // 2))
        yield f"padded {name}", square


def _cut(picture: Image.Image, width: float, height: float, x: float, y: float) -> Image.Image:
    """A part with these sides, relative to the picture; x and y: 0 at the start, 1 at the end."""
    across, down = max(1, round(picture.width * width)), max(1, round(picture.height * height))
    left, top = round((picture.width - across) * x), round((picture.height - down) * y)
    return picture.crop((left, top, left + across, top + down))
