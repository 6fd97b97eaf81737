"""Draws answers: predicted points on the image, with the correct region."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pokevla.evaluation.vlm.grounding import Question, Verdict, spread
from pokevla.files.writing import atomic_path
from pokevla.policy.pictures import PREDICTED_COLOUR, draw_masks, resized_mask, strip

SIDE = 256
COLUMNS = 4
TEXT_HEIGHT = 44
LETTERS_PER_LINE = 40


def points_picture(path: Path, questions: Sequence[Question], verdicts: Sequence[Verdict], limit: int) -> None:
    """Write a PNG of at most `limit` pointing questions, evenly spread. Writes nothing if there are none.

    Raises:
        DiskFullError: disk full.
        DataError: writing failed otherwise.
    """
    pairs = [(q, v) for q, v in zip(questions, verdicts, strict=True) if q.answer_kind == "point"]
    if not pairs:
        return
    pictures = [_picture(*pairs[index]) for index in spread(len(pairs), limit)]
    with atomic_path(path) as temporary:
        Image.fromarray(strip(pictures, columns=COLUMNS)).save(temporary, optimize=True)


def _picture(question: Question, verdict: Verdict) -> np.ndarray:
    image = np.asarray(question.image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    mask = None if question.mask is None else resized_mask(question.mask, SIDE)
    canvas = Image.new("RGB", (SIDE, SIDE + TEXT_HEIGHT), (24, 26, 32))
    canvas.paste(Image.fromarray(draw_masks(image, None, mask)))
    draw = ImageDraw.Draw(canvas)
    for x, y in verdict.points:
        if 0 <= x < 1 and 0 <= y < 1:
            left, top = x * SIDE, y * SIDE
            draw.ellipse(
                (left - 5, top - 5, left + 5, top + 5), fill=PREDICTED_COLOUR, outline=(255, 255, 255), width=2
            )
    asked = question.question.split(" Reply with ")[0]  # without the instructions on the answer's format
    lines = textwrap.wrap(asked, LETTERS_PER_LINE)[:2]
    note = f"{verdict.answer[:LETTERS_PER_LINE] or '(no answer)'}  {'right' if verdict.score >= 0.5 else 'wrong'}"
    draw.multiline_text((4, SIDE + 2), "\n".join([*lines, note]), fill=(235, 235, 240), font_size=11, spacing=1)
    return np.asarray(canvas)
