"""The figures of a part of a benchmark: scores with intervals, what failed, chance, how varied the answers are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pokevla.evaluation.statistics.bootstrap import Stratum, weighted_interval
from pokevla.evaluation.vlm_benchmarks.judging import Judged
from pokevla.evaluation.vlm_benchmarks.parsing.letters import option_letter
from pokevla.evaluation.vlm_benchmarks.reading.items import Item, Part

CELLS = 4
"""Cells of a side of the histograms of positions."""
GRID = (48, 64)
"""Rows and columns of points among which the best constant one is looked for."""


class Chance:
    """What a model reaches that does not look: collected question by question, in bounded memory."""

    def __init__(self) -> None:
        self._inside: list[float] = []
        self._grid = np.zeros(GRID)
        self._targets = np.zeros((CELLS, CELLS))

    def add(self, item: Item) -> None:
        """Take a question into account."""
        mask = item.mask
        if mask is None:
            self._inside.append(1 / len(item.choices))
            return
        self._inside.append(float(mask.mean()))
        height, width = mask.shape
        rows = ((np.arange(GRID[0]) + 0.5) / GRID[0] * height).astype(int)
        columns = ((np.arange(GRID[1]) + 0.5) / GRID[1] * width).astype(int)
        self._grid += mask[np.ix_(rows, columns)]
        if mask.any():
            shares = mask[: height // CELLS * CELLS, : width // CELLS * CELLS]
            cells = shares.reshape(CELLS, height // CELLS, CELLS, width // CELLS).sum(axis=(1, 3))
            self._targets += cells / max(float(cells.sum()), 1e-12)

    @property
    def by_question(self) -> list[float]:
        """Expected score of a random pixel, or of a random option."""
        return self._inside

    def pointing(self) -> dict[str, Any]:
        """Mean score of a random pixel, the point that would score best as the answer to all, where the targets are."""
        count = len(self._inside)
        row, column = np.unravel_index(int(self._grid.argmax()), GRID)
        return {
            "chance": float(np.mean(self._inside)),
            "best_constant": float(self._grid.max() / count),
            "best_constant_answer": [round((column + 0.5) / GRID[1], 3), round((row + 0.5) / GRID[0], 3)],
            "target_positions": (self._targets / count).round(4).tolist(),
        }


def part_figures(
    part: Part, judged: Sequence[Judged], chance: Chance, weights: Mapping[str, float] | None
) -> dict[str, Any]:
    """Entry of a part in `summary.json`. `weights`: of the accuracies by source; None: one mean over all."""
    scored = [one for one in judged if one.official is not None]
    figures: dict[str, Any] = {
        "column": part.column,
        "questions": len(judged),
        "published_questions": part.published_count,
        "evaluated": len(scored),
        "official": score_of(scored, [one.official or 0.0 for one in scored], weights),
        "strict": score_of(judged, [one.strict for one in judged], weights),
        "failures": dict(Counter(one.failure for one in judged if one.failure is not None).most_common()),
        "failure_rate": sum(one.failure is not None for one in judged) / len(judged),
        "truncated": sum(one.truncated for one in judged),
        "distinct_replies": len({one.reply.strip() for one in judged}),
        "by_group": _by_group(judged),
    }
    if weights is None:
        return {**figures, **chance.pointing(), **_pointing(judged)}
    return {**figures, **_choosing(judged, chance, weights)}


def score_of(
    judged: Sequence[Judged], values: Sequence[float], weights: Mapping[str, float] | None
) -> dict[str, float] | None:
    """Score with its interval over images; None without a question, or where a source has none."""
    strata = []
    for source, weight in (weights or {"": 1.0}).items():
        rows = [row for row, one in enumerate(judged) if weights is None or one.groups["source"] == source]
        if not rows:
            return None
        strata.append(Stratum(np.array([values[row] for row in rows]), [judged[row].image for row in rows], weight))
    score, low, high = weighted_interval(strata)
    return {"score": score, "low": low, "high": high}


def _by_group(judged: Sequence[Judged]) -> dict[str, dict[str, dict[str, Any]]]:
    """Field -> value -> number of questions and mean scores."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for name in sorted({name for one in judged for name in one.groups}):
        for value in sorted({one.groups[name] for one in judged if name in one.groups}):
            members = [one for one in judged if one.groups.get(name) == value]
            official = [one.official for one in members if one.official is not None]
            table.setdefault(name, {})[value] = {
                "questions": len(members),
                "official": float(np.mean(official)) if official else None,
                "strict": float(np.mean([one.strict for one in members])),
            }
    return table


def _pointing(judged: Sequence[Judged]) -> dict[str, Any]:
    histogram = np.zeros((CELLS, CELLS), dtype=int)
    outside = 0
    for one in judged:
        centres = [*one.points, *(((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in one.boxes)]
        for x, y in centres:
            if 0 <= x < 1 and 0 <= y < 1:
                histogram[int(y * CELLS), int(x * CELLS)] += 1
            else:
                outside += 1
    readable = [(one.points, one.boxes) for one in judged if one.failure is None]
    areas = [one.box_area for one in judged if one.box_area is not None]
    return {
        "distinct_answers": len(set(readable)),
        "readable": len(readable),
        "positions": histogram.tolist(),
        "outside": outside,
        "read_as_pixels": sum(one.in_pixels for one in judged),
        "mean_box_area": float(np.mean(areas)) if areas else None,
    }


def _choosing(judged: Sequence[Judged], chance: Chance, weights: Mapping[str, float]) -> dict[str, Any]:
    random = score_of(judged, chance.by_question, weights)
    most = max(len(one.choices) for one in judged)
    letters = [option_letter(index) for index in range(most)]
    constant: dict[str, float] = {}
    for letter in letters:
        always = score_of(judged, [float(one.expected == letter) for one in judged], weights)
        if always is not None:
            constant[letter] = always["score"]
    best = max(constant, key=lambda letter: constant[letter]) if constant else None
    return {
        "chance": None if random is None else random["score"],
        "chance_micro": float(np.mean(chance.by_question)),
        "best_constant": None if best is None else constant[best],
        "best_constant_answer": best,
        "micro": float(np.mean([one.official or 0.0 for one in judged])),
        "micro_strict": float(np.mean([one.strict for one in judged])),
        "letters": {letter: sum(one.official_letter == letter for one in judged) for letter in letters},
        "expected_letters": {letter: sum(one.expected == letter for one in judged) for letter in letters},
        "no_letter": sum(one.official_letter is None for one in judged),
        "distinct_answers": len({one.official_letter for one in judged} - {None}),
        "readable": sum(one.failure is None for one in judged),
    }
