"""The same answer to every question: what a score has to exceed before it says that a model looks at the picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.data.dataset import open_dataset
from pokevla.evaluation.vlm_benchmarks.evaluate import Settings, evaluate_vlm
from pokevla.evaluation.vlm_benchmarks.judging import Reply

GRID = 100
"""Candidates along each side."""


class ConstantAnswer:
    """Answers one point, whatever it is asked: a respondent of `evaluate_vlm`."""

    kind = "constant answer"

    def __init__(self, point: tuple[float, float]) -> None:
        """`point`: fractions of the picture."""
        self.labels: list[str] = []
        self._text = "[({:.3f}, {:.3f})]".format(*point)

    def answer(self, images: Sequence[Any], prompts: Sequence[str], max_new_tokens: int) -> list[Reply]:
        """The point, for each prompt."""
        return [Reply(self._text) for _ in prompts]


def most_covered(boxes: Iterable[Sequence[float]]) -> tuple[float, float]:
    """The point of a grid that lies in the most boxes (x1, y1, x2, y2), all in fractions of the picture.

    Raises:
        ValueError: there is no box.
    """
    centres = (np.arange(GRID) + 0.5) / GRID
    counts, given = np.zeros((GRID, GRID), dtype=np.int64), 0
    for x1, y1, x2, y2 in boxes:
        counts += np.outer((y1 <= centres) & (centres < y2), (x1 <= centres) & (centres < x2))
        given += 1
    if not given:
        raise ValueError("no boxes")
    row, column = np.unravel_index(int(counts.argmax()), counts.shape)
    return float(centres[column]), float(centres[row])


def judge_constant(grounding: Path, benchmark: Path, out: Path) -> dict[str, Any]:
    """Ask `benchmark`, in Where2Place's layout, for points; the answer is the point in the most boxes that the answers
    of the dataset `grounding` name. Returns the summary of the folder `out`."""
    rows = open_dataset(grounding).samples.select(["task", "target_boxes"]).to_pylist()
    boxes = [box for row in rows if row["task"] == "referred_box" for box in row["target_boxes"]]
    settings = Settings("where2place", grounding, benchmark, parts=["point"], pictures=0)
    return evaluate_vlm(settings, out, respondent=ConstantAnswer(most_covered(boxes)))
