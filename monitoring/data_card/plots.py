"""Drawings and templates that pages about data share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pokevla.telemetry.figures import number, percent

if TYPE_CHECKING:
    from jinja2 import Environment

WIDTH, HEIGHT = 300, 136
"""Size of a histogram in units of its drawing."""
LEFT, RIGHT, TOP, BOTTOM = 6, 294, 8, 112
CHART = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
"""`chart` of `plots.html.j2`."""


def page_templates(folder: Path | None = None) -> Environment:
    """Templates of the card and, before them, of `folder`. All values are escaped."""
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    own = Path(__file__).parent
    folders = [*([folder] if folder is not None else []), own, own.parent / "report"]  # it has the style sheet
    escaping = select_autoescape(["j2", "html"])
    environment = Environment(loader=FileSystemLoader(folders), autoescape=escaping, trim_blocks=True)
    environment.filters |= {"figure": number, "percent": percent, "count": spaced, "size": size}
    return environment


def spaced(value: int) -> str:
    """12 345 with narrow spaces at which no line ends."""
    return f"{value:,}".replace(",", "\u202f")


def size(size_bytes: int) -> str:
    """A size in MiB, or GiB from 1 GiB on."""
    value, unit = (size_bytes / 2**30, "GiB") if size_bytes >= 2**30 else (size_bytes / 2**20, "MiB")
    return f"{value:.1f} {unit}"


def bars(histogram: Mapping[str, Any]) -> dict[str, Any]:
    """Bars of a histogram in units of its drawing, and the texts at its ends.

    Args:
        histogram: `counts`, `low` and `high`, and how many values are `below` and `above`.
    """
    counts: Sequence[int] = histogram["counts"]
    highest, width = max([*counts, 1]), (RIGHT - LEFT) / len(counts)
    drawn = [
        {
            "x": round(LEFT + place * width, 2), "width": round(max(0.5, width - 0.6), 2),
            "y": round(BOTTOM - (BOTTOM - TOP) * count / highest, 2),
            "height": round((BOTTOM - TOP) * count / highest, 2), "count": count,
        }
        for place, count in enumerate(counts) if count
    ]  # fmt: skip
    ends = {"below": histogram["below"], "above": histogram["above"]}
    return {"bars": drawn, "low": number(histogram["low"]), "high": number(histogram["high"]), **ends}


def cells(grid: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Cells of a map that are not empty: place in percent, and strength from 0.08 to 1."""
    highest, side = max([*(max(row) for row in grid), 1]), 100 / len(grid)
    return [
        {"x": column * side, "y": row * side, "side": side, "strength": round(0.08 + 0.92 * count / highest, 3),
         "count": count}
        for row, counts in enumerate(grid) for column, count in enumerate(counts) if count
    ]  # fmt: skip
