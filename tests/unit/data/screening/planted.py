"""Datasets of questions with planted faults, made by the converter of LLaVA's format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.unit.data.curation.published import convert, talk, write_json

LIST = "llava_v1_5_mix665k.json"
LETTER = "\nA. cup\nB. bowl\nAnswer with the option's letter from the given choices directly."


def store(folder: Path, name: str, picture: Image.Image, **options: Any) -> str:
    """Write a picture into a source; returns what a row calls it."""
    path = folder / "coco/train2017" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return f"coco/train2017/{name}"


def dataset(source: Path, out: Path, rows: Sequence[tuple[str | list[str] | None, str, str]], *options: str) -> Path:
    """A dataset of rows (picture or pictures, question, answer) in this order; keys end with the number of the row."""
    content = []
    for number, (image, question, answer) in enumerate(rows):
        marks = "<image>" * (len(image) - 1) if isinstance(image, list) else ""
        turns = talk(f"{marks}{question}", answer, image=image is not None)
        content.append({"id": str(number), **({"image": image} if image else {}), "conversations": turns})
    write_json(source / LIST, content)
    assert convert("llava", source, out, *options)["codes"] == {}
    return out


def number_of(key: str) -> int:
    """Number of the row behind a key."""
    return int(key.rsplit("-", 1)[1])
