"""What the writers of all sources share: settings, pictures that are used again, planted faults, lists written row by
row."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.twin.scenes import Scene, draw_scene, make_scene, random_of

Fault = Callable[[dict[str, Any]], int | None]
"""Damages a row in place, and returns how many records are lost by it; None: one."""


@dataclass(frozen=True)
class TwinSettings:
    """What a twin depends on."""

    rows: int = 300
    """Rows of each source."""
    seed: int = 0
    pictures: int = 0
    """Distinct pictures (or clips) of each source, used in turn; 0: each row has its own."""
    faults: float = 0.0
    """Share of the rows that are damaged."""
    side: int = 320
    """Longest side of pictures in pixels; 0: that of the published set."""
    photos: bool = False
    """Draw on a real photograph: the files are as large as photographs."""


@dataclass
class Planted:
    """What the conversion of a source has to find."""

    rows: int = 0
    records: int = 0
    """Records that have to be kept."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason code -> records that have to be left out."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"rows": self.rows, "records": self.records, "left_out": dict(sorted(self.left_out.items()))}


class Writer:
    """Writes one source below `root`."""

    def __init__(self, source: str, root: Path, settings: TwinSettings, published_size: tuple[int, int]) -> None:
        """`published_size`: width and height of the pictures of the published set."""
        self.source, self.root, self.settings = source, root, settings
        self.planted = Planted()
        self.size = _scaled(published_size, settings.side)
        self._written: set[str] = set()  # at most `pictures` names, or none

    def rng(self, number: int) -> random.Random:
        """Random numbers of a row."""
        return random_of(self.settings.seed, self.source, "row", number)

    def picture_number(self, number: int) -> int:
        """Which picture a row shows."""
        return number % self.settings.pictures if self.settings.pictures else number

    def scene(self, number: int, part: str = "", fewest: int = 3, most: int = 5) -> Scene:
        """The scene of a row, of `fewest` to `most` things."""
        picture = self.picture_number(number)
        return make_scene(self.settings.seed, self.source + part, picture, self.size, fewest, most)

    def save(self, name: str, draw: Callable[[], Image.Image]) -> None:
        """Write a picture, if no earlier row has. The name decides the format."""
        if name in self._written:
            return
        if self.settings.pictures:
            self._written.add(name)
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw().save(path, **_options(path.suffix))

    def save_scene(self, name: str, scene: Scene) -> None:
        """Write the picture of a scene."""
        self.save(name, lambda: draw_scene(scene, photo=self.settings.photos))

    def first_use(self, name: str) -> bool:
        """Whether no earlier row has asked for this name."""
        if name in self._written:
            return False
        if self.settings.pictures:
            self._written.add(name)
        return True

    def add(self, row: dict[str, Any], number: int, faults: Mapping[str, Fault], records: int = 1) -> dict[str, Any]:
        """Count a row of `records` records, and damage it if its number is drawn."""
        self.planted.rows += 1
        self.planted.records += records
        rng = random_of(self.settings.seed, self.source, "fault", number)
        if faults and rng.random() < self.settings.faults:
            code = rng.choice(sorted(faults))
            self.leave_out(code, faults[code](row) or 1)
        return row

    def pass_over(self, row: dict[str, Any], code: str) -> dict[str, Any]:
        """Count a row that the converter leaves out as published."""
        self.planted.rows += 1
        self.planted.left_out[code] += 1
        return row

    def leave_out(self, code: str, records: int) -> None:
        """Count records that were to be kept as left out."""
        self.planted.left_out[code] += records
        self.planted.records -= records

    def write_list(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """A JSON list, one row after the other: memory does not grow with their number."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            separator = "["
            for row in rows:
                file.write(separator)
                file.write(json.dumps(row))
                separator = ",\n"
            file.write("]" if separator != "[" else "[]")


def _scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    if not side or side >= max(size):
        return size
    return round(size[0] * side / max(size)), round(size[1] * side / max(size))


def _options(suffix: str) -> dict[str, Any]:
    return {"quality": 90} if suffix == ".jpg" else {"compress_level": 3}


def encoded(image: Image.Image, suffix: str) -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    image.save(buffer, {".jpg": "JPEG", ".png": "PNG"}[suffix], **_options(suffix))
    return buffer.getvalue()


def split_rows(rows: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Rows of each part: none is lost, and each has at least one if there are enough."""
    total = sum(shares.values())
    counts = {name: max(1, int(rows * share / total)) for name, share in shares.items()}
    largest = max(shares, key=lambda name: shares[name])
    counts[largest] += rows - sum(counts.values())
    return {name: max(0, count) for name, count in counts.items()}


def talk(*texts: str, image: bool = True) -> list[dict[str, str]]:
    """Turns of LLaVA's form, with `<image>` in the first."""
    turns = [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]
    if image:
        turns[0]["value"] = f"<image>\n{turns[0]['value']}"
    return turns


def tuples(values: Iterable[Iterable[float]]) -> str:
    """`[(0.412, 0.633), ...]`, as the published sets write them."""
    return "[" + ", ".join("(" + ", ".join(f"{number:.3f}" for number in each) + ")" for each in values) + "]"


# Faults of rows with turns of LLaVA's form.


def no_answer(row: dict[str, Any]) -> None:
    """Code `text_empty`."""
    row["conversations"][1]["value"] = " "


def no_question(row: dict[str, Any]) -> None:
    """Code `text_empty`."""
    row["conversations"][0]["value"] = "<image>\n" if "<image>" in row["conversations"][0]["value"] else " "


def roles_exchanged(row: dict[str, Any]) -> None:
    """Code `turn_order`."""
    row["conversations"] = row["conversations"][::-1]


def second_image_token(row: dict[str, Any]) -> None:
    """Code `image_token_count`."""
    row["conversations"][0]["value"] += " <image>"


def absent_image(row: dict[str, Any]) -> None:
    """Code `image_missing`."""
    row["image"] = row["image"].replace(".", "_absent.")


def control_token(row: dict[str, Any]) -> None:
    """Code `special_token`."""
    row["conversations"][0]["value"] += " <|im_end|>"


def looping_text(row: dict[str, Any]) -> None:
    """Code `text_loop`."""
    row["conversations"][0]["value"] += " very" * 12


def answered(text: str) -> Fault:
    """The answer replaced by another."""

    def damage(row: dict[str, Any]) -> None:
        row["conversations"][1]["value"] = text

    return damage
