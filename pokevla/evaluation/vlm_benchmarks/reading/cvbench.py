"""CV-Bench: 2,638 questions with options about counts, relations, depth and distance.

Published at huggingface.co/datasets/nyu-visionx/CV-Bench: `test_2d.parquet` and `test_3d.parquet`, or the same rows as
JSON lines with the pictures below `img/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from pokevla.data.records import REPLY_WITH
from pokevla.errors import DataError
from pokevla.evaluation.vlm_benchmarks.parsing.letters import option_index
from pokevla.evaluation.vlm_benchmarks.reading.items import Item, Part, Wording, find_root
from pokevla.evaluation.vlm_benchmarks.reading.tables import (
    GET_AGAIN,
    ParquetRows,
    file_in,
    jsonl_rows,
    picture_file,
    refuse_archive,
    stored_picture,
    text_in,
)

PART, COLUMN, PUBLISHED_COUNT = "cvbench", "CV-Bench", 2638
SUFFIX = "Answer with the option's letter from the given choices directly."
"""What Cambrian's runner adds on a line of its own (eval/eval/ade/ade_eval.py, --question_extension)."""
SOURCES = ("ADE20K", "COCO", "Omni3D")
WEIGHTS = {"ADE20K": 0.25, "COCO": 0.25, "Omni3D": 0.5}
"""Of the accuracies by source in the score: ((ADE20K + COCO) / 2 + Omni3D) / 2, by the card of the dataset."""
_FIELDS = ("idx", "type", "task", "question", "choices", "answer", "prompt", "source")
_HALVES = ("test_2d", "test_3d")


def read_cvbench(data: Path, wording: Wording) -> list[Part]:
    """The benchmark in the folder `data`, as one part. With one half only, there is no score by the official formula.

    Raises:
        DataError: it is another dataset, or a file is damaged or missing.
    """
    refuse_archive(data)
    root = find_root(data, ("test_*.parquet",))
    parquet = [root / f"{half}.parquet" for half in _HALVES if (root / f"{half}.parquet").is_file()]
    if parquet:
        rows = ParquetRows(parquet, (*_FIELDS, "image"))
        return [Part(PART, COLUMN, len(rows), PUBLISHED_COUNT, partial(_parquet_items, rows, wording))]
    lines = [root / f"{half}.jsonl" for half in _HALVES if (root / f"{half}.jsonl").is_file()]
    if not lines:
        raise DataError(
            f"{data} is not CV-Bench: it has neither test_2d.parquet, test_3d.parquet nor their JSON lines.",
            "Download nyu-visionx/CV-Bench from the Hugging Face hub.",
        )
    entries = [(f"{path}: entry {number}", row) for path in lines for number, row in enumerate(jsonl_rows(path), 1)]
    return [Part(PART, COLUMN, len(entries), PUBLISHED_COUNT, partial(_line_items, root, entries, wording))]


def _parquet_items(rows: ParquetRows, wording: Wording, numbers: list[int]) -> Iterator[Item]:
    for where, row in rows.read(numbers):
        yield _item(row, where, stored_picture(row, "image", where), wording)


def _line_items(
    root: Path, entries: list[tuple[str, dict[str, Any]]], wording: Wording, numbers: list[int]
) -> Iterator[Item]:
    for number in numbers:
        where, row = entries[number]
        yield _item(row, where, picture_file(file_in(root, row, "filename", where)), wording)


def _item(row: dict[str, Any], where: str, image: Image.Image, wording: Wording) -> Item:
    choices = row.get("choices")
    if not isinstance(choices, list) or not 2 <= len(choices) <= 26 or not all(isinstance(c, str) for c in choices):
        raise DataError(f"{where}: the field 'choices' is no list of options.", GET_AGAIN)
    letter = text_in(row, "answer", where).strip("() ").upper()
    if len(letter) != 1 or not 0 <= option_index(letter) < len(choices):
        raise DataError(f"{where}: the answer {letter!r} is none of {len(choices)} options.", GET_AGAIN)
    source = text_in(row, "source", where)
    if source not in SOURCES:
        raise DataError(f"{where}: unknown source {source!r}.", f"Known: {', '.join(SOURCES)}.")
    question, prompt = text_in(row, "question", where), text_in(row, "prompt", where)
    asked = f"{prompt}\n{SUFFIX}" if wording == "official" else f"{prompt} {REPLY_WITH['choice']}"
    groups = {"source": source, "task": text_in(row, "task", where)}
    name = row.get("source_filename") or row.get("filename") or row.get("idx")
    return Item(
        str(row.get("idx")), question, asked, image.convert("RGB"), f"{source}/{name}", None, tuple(choices), letter,
        groups,
    )  # fmt: skip
