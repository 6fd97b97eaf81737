"""Pictures like the paper's Fig. 4: the right region in red, the predicted points in green, the question below."""

from __future__ import annotations

import textwrap

import numpy as np
from PIL import Image, ImageDraw

from pokevla.evaluation.vlm_benchmarks.judging import Judged
from pokevla.evaluation.vlm_benchmarks.reading.items import Item
from pokevla.policy.pictures import outline

SIZE = (320, 240)
"""Width and height into which an image is fitted."""
TEXT_HEIGHT = 58
LETTERS_PER_LINE = 54
RED, GREEN, WHITE, DARK = (225, 40, 40), (40, 215, 80), (235, 235, 240), (24, 26, 32)
_FILL = 0.4


def question_picture(item: Item, judged: Judged) -> np.ndarray:
    """(H, W, 3) uint8: the image with region, points and boxes, and below it question, score and reply."""
    image = item.image.copy()
    image.thumbnail(SIZE, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (SIZE[0], SIZE[1] + TEXT_HEIGHT), DARK)
    left, top = (SIZE[0] - image.width) // 2, (SIZE[1] - image.height) // 2
    canvas.paste(_with_region(image, item.mask), (left, top))
    draw = ImageDraw.Draw(canvas)
    for x0, y0, x1, y1 in judged.boxes:
        corners = [
            _placed(x, size, start)
            for x, size, start in (
                (x0, image.width, left),
                (y0, image.height, top),
                (x1, image.width, left),
                (y1, image.height, top),
            )
        ]
        if corners[0] < corners[2] and corners[1] < corners[3]:
            draw.rectangle(corners, outline=GREEN, width=2)
    for x, y in judged.points:
        if 0 <= x < 1 and 0 <= y < 1:
            column, row = left + x * image.width, top + y * image.height
            draw.ellipse((column - 5, row - 5, column + 5, row + 5), fill=GREEN, outline=(255, 255, 255), width=1)
    lines = textwrap.wrap(item.question, LETTERS_PER_LINE, max_lines=3, placeholder=" ...")
    lines.append(_note(judged))
    draw.multiline_text((4, SIZE[1] + 2), "\n".join(lines), fill=WHITE, font_size=11, spacing=1)
    return np.asarray(canvas)


def _with_region(image: Image.Image, mask: np.ndarray | None) -> Image.Image:
    if mask is None:
        return image
    small = Image.fromarray((mask * 255).astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST)
    inside = np.asarray(small) > 127
    pixels = np.asarray(image).astype(np.float32)
    pixels[inside] = (1 - _FILL) * pixels[inside] + _FILL * np.array(RED, np.float32)
    pixels[outline(inside)] = RED
    return Image.fromarray(pixels.round().astype(np.uint8))


def _placed(ratio: float, size: int, start: int) -> float:
    return start + min(max(ratio, 0.0), 1.0) * (size - 1)


def _note(judged: Judged) -> str:
    score = "left out" if judged.official is None else f"{judged.official:.2f}"
    text = " ".join(judged.reply.split()) or "(no reply)"
    right = f" ({judged.expected} is right)" if judged.expected is not None else ""
    return textwrap.shorten(f"{score}{right}: {text}", LETTERS_PER_LINE, placeholder=" ...")
