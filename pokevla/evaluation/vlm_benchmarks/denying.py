"""What a deny list is made of: the questions of benchmarks as they are published, and folders of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pokevla.data.screening.deny_list import DenyItem
from pokevla.errors import DataError
from pokevla.evaluation.vlm_benchmarks.reading.cvbench import read_cvbench
from pokevla.evaluation.vlm_benchmarks.reading.items import Part
from pokevla.evaluation.vlm_benchmarks.reading.refspatial import read_refspatial
from pokevla.evaluation.vlm_benchmarks.reading.tables import (
    GET_AGAIN,
    ParquetRows,
    picture_file,
    refuse_archive,
    stored_picture,
    text_in,
)
from pokevla.evaluation.vlm_benchmarks.reading.where2place import read_where2place

_MARKS: dict[str, tuple[str, ...]] = {
    "where2place": ("point_questions.jsonl", "bbox_questions.jsonl"),
    "refspatial": ("[Ll]ocation*", "[Pp]lacement*", "[Uu]nseen*"),
    "cvbench": ("test_2d.*", "test_3d.*"),
}
"""Files and folders by which a benchmark is recognised, in its folder or in `data/`."""
_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


HOME = "robospatial-home"
"""RoboSpatial-Home (huggingface.co/datasets/chanhee-luke/RoboSpatial-Home): parquet files with these columns."""
_HOME_COLUMNS = ("category", "question", "img")


def recognised(data: Path) -> str | None:
    """The benchmark in a folder; None if it is none that we read.

    Raises DataError: it is no folder, or holds a damaged parquet file.
    """
    refuse_archive(data)
    folders = (data, data / "data")
    for name, marks in _MARKS.items():
        if any(next(folder.glob(mark), None) for folder in folders for mark in marks):
            return name
    if not (parquet := _parquet(data)):
        return None
    columns = _columns(parquet[0])
    return HOME if columns.issuperset(_HOME_COLUMNS) else "where2place"  # FlagEval's files have any name


def _parquet(data: Path) -> list[Path]:
    return sorted(data.glob("*.parquet")) or sorted((data / "data").glob("*.parquet"))


def _columns(path: Path) -> set[str]:
    try:
        return set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file.", GET_AGAIN) from error


def deny_items(data: Path) -> Iterator[DenyItem]:
    """Every question of the benchmark in a folder; of any other folder every picture below it, named after the folder.

    Raises:
        DataError: the benchmark is damaged, a picture is, or there are none.
    """
    name = recognised(data)
    if name is None:
        yield from _pictures(data)
        return
    if name == HOME:
        yield from _home(data)
        return
    readers: dict[str, Callable[[], list[Part]]] = {
        "where2place": lambda: read_where2place(data, _where2place_parts(data), "official"),
        "refspatial": lambda: read_refspatial(data, None, "official", "relative"),
        "cvbench": lambda: read_cvbench(data, "official"),
    }
    for part in readers[name]():
        prefix = "" if part.name == name else f"{part.name}/"
        for item in part.read(list(range(part.count))):
            options = " ".join(f"({chr(65 + place)}) {choice}" for place, choice in enumerate(item.choices))
            yield DenyItem(name, f"{prefix}{item.id}", item.image_name, item.image, item.question, options)


def _where2place_parts(data: Path) -> list[str] | None:
    has_lines = any((data / mark).is_file() for mark in _MARKS["where2place"])
    return None if has_lines else ["point"]


def _home(data: Path) -> Iterator[DenyItem]:
    rows = ParquetRows(_parquet(data), _HOME_COLUMNS)
    for number, (where, row) in enumerate(rows.read(range(len(rows)))):
        picture = stored_picture(row, "img", where).convert("RGB")
        path = row["img"].get("path") if isinstance(row["img"], dict) else None
        yield DenyItem(HOME, str(number), str(path or ""), picture, text_in(row, "question", where))


def _pictures(data: Path) -> Iterator[DenyItem]:
    count = 0
    for path in sorted(data.rglob("*")):
        if path.suffix.casefold() in _PICTURES and path.is_file():
            count += 1
            name = path.relative_to(data).as_posix()
            yield DenyItem(data.resolve().name, name, name, picture_file(path).convert("RGB"))
    if not count:
        raise DataError(
            f"{data} is no benchmark that is known, and has no pictures.", "Name the folder of a benchmark."
        )
