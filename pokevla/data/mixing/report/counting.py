"""The tables of a mixture's datasets, read once in pieces: what is known of each class of samples.

Memory grows by 24 bytes a sample (two hashes and the row), so that 2.4 million take 58 MB.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pokevla.data.card.questions import GRID, count_points, tuples_in
from pokevla.data.dataset import Dataset
from pokevla.data.mixing.report.diversity import text_hashes
from pokevla.data.mixing.report.lengths import LengthCounts, Measure
from pokevla.errors import DataError
from pokevla.files.checksums import file_damage
from pokevla.recipe.checking.datasets import CONVERT_AGAIN, SAMPLES_NAME

MOST_POINTS = 32
"""Answers with as many points or more are counted together."""
_CLASS = ("category", "source", "task", "answer_kind")
_READ = (*_CLASS, "question", "answer", "target_points", "target_boxes", "width", "further_turns")
_NUM_IMAGES = "num_images"
"""A column of datasets that have samples with several images."""
_ROWS = 1 << 13


class SampleKind(NamedTuple):
    """A class of samples."""

    dataset: str
    """Folder in the mixture."""
    category: str
    source: str
    task: str
    answer_kind: str


@dataclass
class ClassFigures:
    """What is known of the samples of a class, or of several (`joined`)."""

    samples: int = 0
    rows: array[int] = field(default_factory=lambda: array("Q"))
    """In the dataset."""
    questions: array[int] = field(default_factory=lambda: array("Q"))
    """Hash of the question of each sample."""
    heads: array[int] = field(default_factory=lambda: array("Q"))
    """Hash of its first two words."""
    several_lines: int = 0
    """Text answers with a line break: where reasoning is a text, the thought stands before the answer."""
    without_image: int = 0
    several_images: array[int] = field(default_factory=lambda: array("Q"))
    """Rows of the samples with more than one image."""
    points: np.ndarray = field(default_factory=lambda: np.zeros(MOST_POINTS + 1, dtype=np.int64))
    """Samples by number of points in the answer; the last entry is of MOST_POINTS and more."""
    grid: np.ndarray = field(default_factory=lambda: np.zeros((GRID, GRID), dtype=np.int64))
    """Points, and centres of boxes, by cell of the image, rows from the top."""
    question_lengths: dict[str, LengthCounts] = field(default_factory=dict)
    """By measure."""
    answer_lengths: dict[str, LengthCounts] = field(default_factory=dict)


def count_dataset(
    name: str,
    dataset: Dataset,
    measures: Sequence[Measure],
    found: dict[SampleKind, ClassFigures],
    on_rows: Callable[[int], None] | None = None,
) -> None:
    """Add the samples of one dataset to `found`.

    Args:
        on_rows: called with the number of samples read of it.

    Raises:
        DataError: its table is damaged.
    """
    path = dataset.root / SAMPLES_NAME
    stored = dataset.tables.get(SAMPLES_NAME)
    damage = file_damage(dataset.root, stored) if stored is not None else None
    if damage is not None:
        raise DataError(damage, CONVERT_AGAIN)
    first = 0
    try:
        file = pq.ParquetFile(path)
        columns = [*_READ, *({_NUM_IMAGES} & set(file.schema_arrow.names))]
        for batch in file.iter_batches(batch_size=_ROWS, columns=columns, use_threads=False):
            _count(name, batch, first, measures, found)
            first += len(batch)
            if on_rows is not None:
                on_rows(first)
    except (OSError, ValueError, KeyError) as error:  # Arrow's own errors are among them
        raise DataError(f"{path} cannot be read ({error}).", CONVERT_AGAIN) from error


def joined(figures: Iterable[ClassFigures]) -> ClassFigures:
    """The figures of several classes as if they were one; rows are left out: they may be of several datasets."""
    total = ClassFigures()
    for each in figures:
        total.samples += each.samples
        total.questions.extend(each.questions)
        total.heads.extend(each.heads)
        total.several_lines += each.several_lines
        total.without_image += each.without_image
        total.points += each.points
        total.grid += each.grid
        for name in ("question_lengths", "answer_lengths"):
            for measure, lengths in getattr(each, name).items():
                getattr(total, name).setdefault(measure, LengthCounts()).join(lengths)
    return total


def _count(
    name: str, batch: pa.RecordBatch, first: int, measures: Sequence[Measure], found: dict[SampleKind, ClassFigures]
) -> None:
    column = {each: batch.column(each) for each in batch.schema.names}
    questions, heads = text_hashes(column["question"])
    lengths = {measure.name: _lengths(measure, column) for measure in measures}
    lines = pc.call_function("match_substring", [column["answer"]], pc.MatchSubstringOptions("\n"))
    has_lines = lines.to_numpy(zero_copy_only=False).astype(bool)
    without = column["width"].to_numpy(zero_copy_only=False) == 0
    several = np.zeros(len(batch), dtype=bool)
    if _NUM_IMAGES in column:
        several = column[_NUM_IMAGES].to_numpy(zero_copy_only=False) > 1
    for values, rows in _classes(column):
        figures = found.setdefault(SampleKind(name, *values), ClassFigures())
        figures.samples += len(rows)
        figures.rows.frombytes((rows + first).astype(np.uint64).tobytes())
        figures.several_images.frombytes((rows[several[rows]] + first).astype(np.uint64).tobytes())
        figures.questions.frombytes(questions[rows].tobytes())
        figures.heads.frombytes(heads[rows].tobytes())
        figures.without_image += int(without[rows].sum())
        if values[-1] == "text":
            figures.several_lines += int(has_lines[rows].sum())
        _count_targets(figures, column["target_points"].take(rows), column["target_boxes"].take(rows))
        for measure, (of_questions, of_answers) in lengths.items():
            figures.question_lengths.setdefault(measure, LengthCounts()).add(of_questions[rows])
            figures.answer_lengths.setdefault(measure, LengthCounts()).add(of_answers[rows])


def _classes(column: dict[str, pa.Array]) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """(category, source, task, kind of answer), rows (n,) int64 of the batch, for each class in it."""
    codes, texts = np.zeros(len(column["category"]), dtype=np.int64), []
    for name in _CLASS:
        encoded = column[name].dictionary_encode()
        texts.append(encoded.dictionary.to_pylist())
        codes = codes * len(texts[-1]) + encoded.indices.to_numpy(zero_copy_only=False)
    for code in np.unique(codes).tolist():
        rows, values, left = np.flatnonzero(codes == code), [], code
        for names in reversed(texts):
            left, place = divmod(left, len(names))
            values.append(str(names[place]))
        yield tuple(reversed(values)), rows


def _count_targets(figures: ClassFigures, points: pa.Array, boxes: pa.Array) -> None:
    numbers = np.minimum(_list_lengths(points), MOST_POINTS)
    figures.points += np.bincount(numbers, minlength=MOST_POINTS + 1)
    count_points(figures.grid, tuples_in(points, 2))
    corners = tuples_in(boxes, 4)
    count_points(figures.grid, (corners[:, :2] + corners[:, 2:]) / 2)


def _list_lengths(column: pa.Array) -> np.ndarray:
    lengths = pc.call_function("list_value_length", [column])
    return lengths.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)


def _lengths(measure: Measure, column: dict[str, pa.Array]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) lengths of question and answer of each sample, over all turns of its conversation."""
    questions, answers = measure.count(column["question"]), measure.count(column["answer"])
    turns: Any = column["further_turns"]
    samples = np.repeat(np.arange(len(turns)), _list_lengths(turns))
    texts = turns.flatten().flatten()
    if len(texts):
        further = measure.count(texts)
        np.add.at(questions, samples, further[0::2])
        np.add.at(answers, samples, further[1::2])
    return questions, answers
