"""RefSpatial-Bench: one point or region named by its spatial relations, in the splits location, placement and unseen.

Published at huggingface.co/datasets/BAAI/RefSpatial-Bench, as parquet by split and as folders `Location/`,
`Placement/`, `Unseen/` with `question.json`, `image/` and `mask/`. Prompts and parsers go by the family of the
model, as in github.com/Zhoues/RoboRefer, Evaluation/test_benchmark.py and summarize_acc.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pokevla.data.records import REPLY_WITH
from pokevla.errors import DataError, UsageError
from pokevla.evaluation.vlm_benchmarks.parsing.points import (
    PointParser,
    refspatial_gemini,
    refspatial_molmo,
    refspatial_pixels,
    refspatial_tuples,
)
from pokevla.evaluation.vlm_benchmarks.reading.items import Item, Part, Wording, chosen_parts, find_root
from pokevla.evaluation.vlm_benchmarks.reading.tables import (
    ParquetRows,
    file_in,
    json_rows,
    picture_file,
    refuse_archive,
    stored_picture,
    text_in,
)

PARTS = {"location": "RefSpatial location", "placement": "RefSpatial placement", "unseen": "RefSpatial unseen"}
"""Part -> column of the paper's Table III."""
PUBLISHED_COUNTS = {"location": 100, "placement": 100, "unseen": 77}


@dataclass(frozen=True)
class Family:
    """How models of one kind are asked, and how their replies are read."""

    prompt: str
    """With {prompt}, {suffix} and {object} of the question."""
    parse: PointParser


FAMILIES: Mapping[str, Family] = {
    "relative": Family("{prompt} {suffix}", refspatial_tuples),
    "robobrain": Family("{prompt} Please provide its 2D coordinates.", refspatial_pixels),
    "qwen": Family("Locate {object} in this image and output the point coordinates in JSON format.", refspatial_pixels),
    "molmo": Family("Locate several points of {object}.", refspatial_molmo),
    "gemini": Family("Locate one point of {object}.", refspatial_gemini),
}
"""`relative` is that of RoboPoint, RoboRefer, GPT-4o and Claude, and ours."""


def family_of(name: str) -> Family:
    """The family of this name. UsageError if there is none."""
    if name not in FAMILIES:
        raise UsageError(f"There is no family {name!r}.", f"Families: {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def read_refspatial(data: Path, names: list[str] | None, wording: Wording, family: str) -> list[Part]:
    """The splits of the benchmark in the folder `data`.

    Raises:
        DataError: it is another dataset, or a file is damaged or missing.
        UsageError: there is no such split or family, or our wording is asked of another family.
    """
    refuse_archive(data)
    if wording == "pokevla" and family != "relative":
        raise UsageError(f"--wording pokevla does not go with --family {family}.", "Leave one of them out.")
    prompt = _prompt(family_of(family), wording)
    parts = []
    for name in chosen_parts(PARTS, names):
        root = find_root(data, (f"{name}-*.parquet", f"{name}.parquet"))
        parquet = sorted([*root.glob(f"{name}-*.parquet"), *root.glob(f"{name}.parquet")])
        if parquet:
            rows = ParquetRows(parquet, ("id", "image", "mask", "object", "prompt", "suffix"))
            parts.append(_part(name, len(rows), partial(_parquet_items, rows, prompt)))
        elif (folder := data / name.capitalize()).is_dir():
            entries = json_rows(folder / "question.json")
            parts.append(_part(name, len(entries), partial(_folder_items, folder, entries, prompt)))
        elif names:
            raise DataError(f"{data} has no split {name}.", "Leave out --part, or download it.")
    if not parts:
        raise DataError(
            f"{data} is not RefSpatial-Bench: it has neither location-*.parquet nor Location/question.json, nor "
            "those of another split.",
            "Download BAAI/RefSpatial-Bench from the Hugging Face hub.",
        )
    return parts


def first_channel_mask(picture: Image.Image) -> np.ndarray:
    """(H, W) float64 of 0 and 1: 1 where the first channel is above 0, as the scorer reads it."""
    values = np.asarray(picture)
    return ((values[..., 0] if values.ndim == 3 else values) > 0).astype(np.float64)


def _part(name: str, count: int, read: Callable[[list[int]], Iterator[Item]]) -> Part:
    return Part(name, PARTS[name], count, PUBLISHED_COUNTS[name], read)


def _prompt(family: Family, wording: Wording) -> Callable[[dict[str, Any], str], str]:
    """(row, where) -> what the model is asked."""

    def prompt(row: dict[str, Any], where: str) -> str:
        if wording == "pokevla":
            return f"{text_in(row, 'prompt', where)} {REPLY_WITH['point']}"
        text = family.prompt
        for key in ("prompt", "suffix", "object"):
            if f"{{{key}}}" in text:
                text = text.replace(f"{{{key}}}", text_in(row, key, where))
        return text

    return prompt


def _folder_items(
    folder: Path, entries: list[dict[str, Any]], prompt: Callable[[dict[str, Any], str], str], numbers: list[int]
) -> Iterator[Item]:
    for number in numbers:
        row, where = entries[number], f"{folder / 'question.json'}: entry {number + 1}"
        image = file_in(folder, row, "rgb_path", where)
        mask = first_channel_mask(picture_file(file_in(folder, row, "mask_path", where)))
        yield _item(row, where, prompt, picture_file(image), image.name, mask)


def _parquet_items(
    rows: ParquetRows, prompt: Callable[[dict[str, Any], str], str], numbers: list[int]
) -> Iterator[Item]:
    for where, row in rows.read(numbers):
        mask = first_channel_mask(stored_picture(row, "mask", where))
        path = row["image"].get("path") if isinstance(row["image"], dict) else None
        yield _item(row, where, prompt, stored_picture(row, "image", where), str(path or row["id"]), mask)


def _item(
    row: dict[str, Any], where: str, prompt: Callable[[dict[str, Any], str], str], image: Image.Image, name: str,
    mask: np.ndarray,
) -> Item:  # fmt: skip
    groups = {key: str(row[key]) for key in ("step", "category") if row.get(key) not in (None, "")}
    question = text_in(row, "prompt", where)
    return Item(str(row.get("id")), question, prompt(row, where), image.convert("RGB"), name, mask, groups=groups)
