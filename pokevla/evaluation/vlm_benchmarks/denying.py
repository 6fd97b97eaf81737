"""What a deny list is made of: the questions of benchmarks as they are published, and folders of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pokevla.data.screening.deny_list import DenyItem
from pokevla.errors import DataError
from pokevla.evaluation.vlm_benchmarks.reading.cvbench import read_cvbench
from pokevla.evaluation.vlm_benchmarks.reading.items import Part
from pokevla.evaluation.vlm_benchmarks.reading.refspatial import read_refspatial
from pokevla.evaluation.vlm_benchmarks.reading.tables import picture_file, refuse_archive
from pokevla.evaluation.vlm_benchmarks.reading.where2place import read_where2place

_MARKS: dict[str, tuple[str, ...]] = {
    "where2place": ("point_questions.jsonl", "bbox_questions.jsonl"),
    "refspatial": ("[Ll]ocation*", "[Pp]lacement*", "[Uu]nseen*"),
    "cvbench": ("test_2d.*", "test_3d.*"),
}
"""Files and folders by which a benchmark is recognised, in its folder or in `data/`."""
_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


def recognised(data: Path) -> str | None:
    """The benchmark in a folder; None if it is none that we read.

    Raises DataError: it is no folder.
    """
    refuse_archive(data)
    folders = (data, data / "data")
    for name, marks in _MARKS.items():
        if any(next(folder.glob(mark), None) for folder in folders for mark in marks):
            return name
    # FlagEval's Where2Place: parquet files of any name
    return "where2place" if any(next(folder.glob("*.parquet"), None) for folder in folders) else None


def deny_items(data: Path) -> Iterator[DenyItem]:
    """Every question of the benchmark in a folder; of any other folder every picture below it, named after the folder.

    Raises:
        DataError: the benchmark is damaged, a picture is, or there are none.
    """
    name = recognised(data)
    if name is None:
        yield from _pictures(data)
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
