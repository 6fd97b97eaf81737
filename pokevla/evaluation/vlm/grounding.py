"""Grounding accuracy: share of a VLM's predicted points inside the mask, on frames it has never seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pokevla.data.records import parse_choice, parse_points
from pokevla.errors import DataError
from pokevla.evaluation.statistics.intervals import wilson_interval

ASKED_KINDS = ("point", "choice")
"""Points (including affordance questions) are scored by the mask, choices by their letter. Boxes are not asked."""


@dataclass(frozen=True)
class Question:
    """One question of the validation split."""

    key: str
    category: str
    answer_kind: str
    question: str
    answer: str
    image: Image.Image
    mask: np.ndarray | None  # (H, W) bool, True where a point is correct


@dataclass(frozen=True)
class Verdict:
    """A model's answer and its score."""

    key: str
    category: str
    answer_kind: str
    question: str
    expected: str
    answer: str
    points: list[tuple[float, float]]
    score: float  # share of its points inside the mask, or 1 / 0 for a choice


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` indices in [0, count), evenly spread and in order."""
    if count <= limit:
        return list(range(count))
    return [int(index) for index in np.linspace(0, count - 1, limit).round()]


def score_points(points: Sequence[tuple[float, float]], mask: np.ndarray) -> float:
    """Share of `points` (x, y in [0, 1)) inside `mask` (H, W) bool. Points outside the image count as wrong; an
    unreadable answer (no points) scores 0."""
    if not points:
        return 0.0
    height, width = mask.shape
    hits = 0
    for x, y in points:
        if 0 <= x < 1 and 0 <= y < 1:
            hits += bool(mask[int(y * height), int(x * width)])
    return hits / len(points)


def score_choice(answer: str, expected: str) -> float:
    """1 if the answer begins with the expected letter (`B`, `(B)`, `B. left`), otherwise 0."""
    letter = parse_choice(answer)
    return float(letter is not None and letter == parse_choice(expected))


def judge(question: Question, answer: str) -> Verdict:
    """Score one answer. DataError for a point question without a mask."""
    points: list[tuple[float, float]] = []
    if question.answer_kind == "point":
        if question.mask is None:
            raise DataError(f"sample {question.key}: a point question without a mask.", "Convert the dataset again.")
        points = parse_points(answer)
        score = score_points(points, question.mask)
    else:
        score = score_choice(answer, question.answer)
    return Verdict(
        question.key, question.category, question.answer_kind, question.question, question.answer, answer, points, score
    )


def summarise_verdicts(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Summary of one model: point accuracy with its interval, choice accuracy, and accuracy by category."""
    pointing = [verdict for verdict in verdicts if verdict.answer_kind == "point"]
    choosing = [verdict for verdict in verdicts if verdict.answer_kind == "choice"]
    low, high = wilson_interval(round(sum(verdict.score for verdict in pointing)), len(pointing))
    by_category: dict[str, dict[str, Any]] = {}
    for category in sorted({verdict.category for verdict in verdicts}):
        of_category = [verdict for verdict in verdicts if verdict.category == category]
        by_category[category] = {"questions": len(of_category), "accuracy": _mean(of_category)}
    return {
        "point_accuracy": _mean(pointing),
        "point_low": low,
        "point_high": high,
        "point_questions": len(pointing),
        "choice_accuracy": _mean(choosing),
        "choice_questions": len(choosing),
        "questions": len(verdicts),
        "distinct_questions": len({verdict.question for verdict in verdicts}),
        "distinct_points": len({tuple(verdict.points) for verdict in pointing if verdict.points}),
        "unreadable": sum(not verdict.points for verdict in pointing),
        "by_category": by_category,
    }


def _mean(verdicts: Sequence[Verdict]) -> float | None:
    return float(np.mean([verdict.score for verdict in verdicts])) if verdicts else None


def write_verdicts(path: Path, model: str, verdicts: Sequence[Verdict]) -> None:
    """Append one JSON line per answer."""
    with path.open("a", encoding="utf-8") as file:
        for verdict in verdicts:
            file.write(json.dumps({"model": model, **asdict(verdict)}) + "\n")
