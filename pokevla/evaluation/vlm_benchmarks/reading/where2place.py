"""Where2Place: 100 pictures of free space between objects, asked for points and for boxes.

Published at huggingface.co/datasets/wentao-yuan/where2place (`point_questions.jsonl`, `bbox_questions.jsonl`,
`images/`, `masks/NN.jpg` by the number of the line) and, with points only, as parquet at
huggingface.co/datasets/FlagEval/Where2Place.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pokevla.data.records import REPLY_WITH
from pokevla.errors import DataError
from pokevla.evaluation.vlm_benchmarks.reading.items import (
    Item,
    Part,
    Wording,
    chosen_parts,
    find_root,
    without_image_tag,
)
from pokevla.evaluation.vlm_benchmarks.reading.tables import (
    ParquetRows,
    file_in,
    jsonl_rows,
    picture_file,
    refuse_archive,
    stored_picture,
    text_in,
)

PARTS = {"point": "Where2Place point", "bbox": "Where2Place bbox"}
"""Part -> column of the paper's Table III."""
PUBLISHED_COUNT = 100
SUFFIX = (
    "Your answer should be formatted as a list of tuples, i.e. [(x1, y1), (x2, y2), ...], where each tuple contains "
    "the x and y coordinates of a point satisfying the conditions above. The coordinates should be between 0 and 1, "
    "indicating the normalized pixel locations of the points in the image."
)
"""The published request for points (RoboPoint). The parquet form has questions without it; lmms-eval adds it too."""
_SPLIT = " Your answer"
"""Begins the request in the published texts (RoboPoint, robopoint/eval/gpt_vqa.py)."""
_REPLY_WITH = {"point": REPLY_WITH["point"], "bbox": REPLY_WITH["box"]}


def read_where2place(data: Path, names: list[str] | None, wording: Wording) -> list[Part]:
    """The parts of the benchmark in the folder `data`.

    Raises:
        DataError: it is another dataset, or a file is damaged or missing.
        UsageError: there is no such part.
    """
    refuse_archive(data)
    chosen = chosen_parts(PARTS, names)
    root = find_root(data, ("*.parquet",))
    files = {name: root / f"{name}_questions.jsonl" for name in chosen}
    if any(path.is_file() for path in files.values()):
        present = {name: path for name, path in files.items() if path.is_file() or names}
        return [_lines_part(root, name, path, wording) for name, path in present.items()]
    if parquet := sorted(root.glob("*.parquet")):
        if "point" not in chosen:
            raise DataError(f"{data} has no questions about boxes: parquet files hold points only.", "--part point")
        rows = ParquetRows(parquet, ("question", "image", "mask"))
        return [Part("point", PARTS["point"], len(rows), PUBLISHED_COUNT, partial(_parquet_items, rows, wording))]
    raise DataError(
        f"{data} is not Where2Place: it has neither {' nor '.join(path.name for path in files.values())} nor parquet "
        "files.",
        "Download wentao-yuan/where2place from the Hugging Face hub.",
    )


def soft_mask(picture: Image.Image) -> np.ndarray:
    """(H, W) float64: grey / 255, not rounded, as the scorer reads it; edges of the JPEGs count in part."""
    return np.asarray(picture.convert("L"), dtype=np.float64) / 255.0


def _lines_part(root: Path, name: str, path: Path, wording: Wording) -> Part:
    rows = jsonl_rows(path)
    return Part(name, PARTS[name], len(rows), PUBLISHED_COUNT, partial(_line_items, root, name, path, rows, wording))


def _line_items(
    root: Path, name: str, path: Path, rows: list[dict[str, Any]], wording: Wording, numbers: list[int]
) -> Iterator[Item]:
    for number in numbers:
        row, where = rows[number], f"{path}: entry {number + 1}"
        image = file_in(root / "images", row, "image", where)
        mask = soft_mask(picture_file(root / "masks" / f"{number:02d}.jpg"))
        text = without_image_tag(text_in(row, "text", where))
        yield _item(
            name, str(row.get("question_id", number)), text, row, picture_file(image), image.name, mask, wording
        )


def _parquet_items(rows: ParquetRows, wording: Wording, numbers: list[int]) -> Iterator[Item]:
    for number, (where, row) in zip(numbers, rows.read(numbers), strict=True):
        question = without_image_tag(text_in(row, "question", where))
        text = question if _SPLIT in question else f"{question} {SUFFIX}"
        image, mask = stored_picture(row, "image", where), soft_mask(stored_picture(row, "mask", where))
        name = str((row["image"] or {}).get("path") or number) if isinstance(row["image"], dict) else str(number)
        yield _item("point", str(row.get("question_id", number)), text, row, image, name, mask, wording)


def _item(
    part: str, id_: str, text: str, row: dict[str, Any], image: Image.Image, name: str, mask: np.ndarray,
    wording: Wording,
) -> Item:  # fmt: skip
    question = text.split(_SPLIT)[0]
    prompt = text if wording == "official" else f"{question} {_REPLY_WITH[part]}"
    category = row.get("category", row.get("question_type"))
    groups = {"category": category} if isinstance(category, str) and category else {}
    return Item(id_, question, prompt, image.convert("RGB"), name, mask, groups=groups)
