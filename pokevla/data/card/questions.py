"""The questions of a VLM dataset, read once: counts, lengths, and where points and boxes lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pokevla.data.card.histogram import LengthHistogram
from pokevla.data.card.texts import TextCounts
from pokevla.data.dataset import Dataset
from pokevla.errors import DataError
from pokevla.recipe.checking.datasets import CONVERT_AGAIN, SAMPLES_NAME

GRID = 20
"""Cells of the map of points and boxes along each side of the image."""
COUNTED = ("split", "source", "category", "task", "answer_kind", "choice")
_READ = (*COUNTED, "question", "answer", "target_points", "target_boxes", "width", "num_images")
_ROWS = 1 << 14


def question_figures(dataset: Dataset, on_row: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """What the card of a VLM dataset says about its questions.

    Args:
        on_row: called with (done, total) questions.

    Raises:
        DataError: the table is damaged.
    """
    path = dataset.root / SAMPLES_NAME
    counts: dict[str, Counter[str]] = {name: Counter() for name in COUNTED}
    by_kind: dict[str, Counter[str]] = {}
    questions, answers = LengthHistogram(), LengthHistogram()
    texts, replies = TextCounts(), TextCounts()
    points, boxes = np.zeros((GRID, GRID), dtype=np.int64), np.zeros((GRID, GRID), dtype=np.int64)
    areas, done = np.zeros(GRID, dtype=np.int64), 0
    without_image = several_images = 0
    try:
        file = pq.ParquetFile(path)
        names = [name for name in _READ if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=_ROWS, columns=names, use_threads=False):
            column = {name: batch.column(name) for name in names}
            for name in COUNTED:
                if name in column:
                    _count(counts[name], column[name])
            if {"category", "answer_kind"} <= column.keys():
                pairs = zip(column["category"].to_pylist(), column["answer_kind"].to_pylist(), strict=True)
                for category, kind in pairs:
                    by_kind.setdefault(str(category), Counter())[str(kind)] += 1
            for name, histogram, counter in (("question", questions, texts), ("answer", answers, replies)):
                values = column[name].to_pylist()
                histogram.add(np.array([len(text or "") for text in values]))
                counter.add(values)
            if "target_points" in column:
                count_points(points, tuples_in(column["target_points"], 2))
                _add_boxes(boxes, areas, tuples_in(column["target_boxes"], 4))
            if "width" in column:
                without_image += int((column["width"].to_numpy(zero_copy_only=False) == 0).sum())
            if "num_images" in column:
                several_images += int((column["num_images"].to_numpy(zero_copy_only=False) > 1).sum())
            done += len(batch)
            if on_row is not None:
                on_row(done, file.metadata.num_rows)
    except (OSError, ValueError, KeyError) as error:  # Arrow's own errors are among them
        raise DataError(f"{path} cannot be read ({error}).", CONVERT_AGAIN) from error
    return {
        "questions": done,
        "without_image": without_image,
        "several_images": several_images,
        "counts": {name: dict(counter.most_common(50)) for name, counter in counts.items() if counter},
        "by_category": {name: dict(counter) for name, counter in sorted(by_kind.items())},
        "question_lengths": questions.to_dict(),
        "answer_lengths": answers.to_dict(),
        "question_texts": texts.to_dict(),
        "answer_texts": replies.to_dict(),
        "points": {"count": int(points.sum()), "grid": points.tolist()},
        "boxes": {"count": int(boxes.sum()), "grid": boxes.tolist(), "areas": areas.tolist()},
    }


def _count(counter: Counter[str], column: pa.Array) -> None:
    for entry in column.value_counts().to_pylist():
        if entry["values"] is not None:
            counter[str(entry["values"])] += entry["counts"]


def tuples_in(column: pa.Array, width: int) -> np.ndarray:
    """(n, width) float64: the tuples of all rows of a column of lists of tuples. Raises ValueError if one has another
    length."""
    numbers = column.flatten().flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers.reshape(-1, width)


def _cells(values: np.ndarray) -> np.ndarray:
    return np.clip((values * GRID).astype(np.int64), 0, GRID - 1)


def count_points(grid: np.ndarray, points: np.ndarray) -> None:
    """Count points (n, 2), fractions of the image, in the cells of a map (GRID, GRID), rows from the top."""
    cells = _cells(points)
    np.add.at(grid, (cells[:, 1], cells[:, 0]), 1)


def _add_boxes(grid: np.ndarray, areas: np.ndarray, boxes: np.ndarray) -> None:
    """Count the centres of boxes (n, 4) by cell, and their areas as a share of the image."""
    count_points(grid, (boxes[:, :2] + boxes[:, 2:]) / 2)
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, 1)
    np.add.at(areas, _cells(sides[:, 0] * sides[:, 1]), 1)
