"""Text on pictures of policies: wrapped lines, small plates, and the legend of masks."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw, ImageFont

from pokevla.evaluation.trial_records import Outcome
from pokevla.policy.pictures import PREDICTED_COLOUR, TRUE_COLOUR

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAPER, INK, FAINT = (255, 255, 255), (20, 22, 28), (110, 114, 124)
"""Background and text of sheets."""
PLATE, LIGHT = (24, 26, 32), (240, 240, 245)
"""Background and text of frames of videos, and of plates on images."""
OUTCOME_COLOURS: dict[Outcome, Colour] = {"success": (24, 120, 82), "failure": (178, 58, 42), "crashed": (158, 102, 0)}
OUTCOME_WORDS: dict[Outcome, str] = {"success": "SUCCESS", "failure": "FAILURE", "crashed": "SIMULATOR CRASHED"}


def font(size: int) -> Font:
    """Pillow's own font, which is the same on every machine."""
    return ImageFont.load_default(size)


def wrapped(text: str, letters: Font, width: int, most: int) -> list[str]:
    """`text` in lines of at most `width` pixels, at most `most` of them; what is left out ends in dots. A word that is
    longer than a line is broken."""
    lines, line = [], ""
    words = text.split()
    while words:
        word = words.pop(0)
        longer = f"{line} {word}".strip()
        if letters.getlength(longer) <= width:
            line = longer
            continue
        if not line:
            fitting = next(n for n in range(len(word), 0, -1) if n == 1 or letters.getlength(word[:n]) <= width)
            line, rest = word[:fitting], word[fitting:]
            words = [rest, *words] if rest else words
        else:
            words = [word, *words]
        lines.append(line)
        line = ""
    lines += [line] if line else []
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and letters.getlength(f"{last} ...") > width:
        last = last[:-1]
    return [*lines[: most - 1], f"{last} ..."]


def tag(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str) -> None:
    """White text on a dark plate, whose lower left corner is given."""
    box = draw.textbbox(corner, text, font(11), anchor="lb")
    draw.rectangle((box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2), PLATE)
    draw.text(corner, text, LIGHT, font(11), anchor="lb")


def mask_legend(draw: ImageDraw.ImageDraw, place: tuple[int, int]) -> None:
    """The colours of predicted and true masks, 40 pixels high, with its upper left corner at `place`."""
    left, top = place
    for row, (colour, text) in enumerate(((PREDICTED_COLOUR, "predicted"), (TRUE_COLOUR, "true"))):
        draw.rectangle((left, top + 22 * row + 3, left + 10, top + 22 * row + 13), colour)
        draw.text((left + 15, top + 22 * row), text, INK, font(12))


def evenly(total: int, most: int) -> list[int]:
    """At most `most` of `total` places, evenly spaced from the first to the last."""
    return np.linspace(0, total - 1, min(most, total)).round().astype(int).tolist()
