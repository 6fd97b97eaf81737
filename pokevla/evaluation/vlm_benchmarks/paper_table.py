"""The paper's Table III: grounding and question answering before and after its pre-training, with our results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pokevla.files.labels import printable

SIGNATURE = "<!-- pokevla vlm benchmarks -->"
SOURCE = "PokeVLA, arXiv 2604.20834, Table III"
COLUMNS = (
    "Where2Place point",
    "Where2Place bbox",
    "RefSpatial location",
    "RefSpatial placement",
    "RefSpatial unseen",
    "CV-Bench",
)
PAPER: Mapping[str, tuple[float, ...]] = {
    "paper: Prismatic-VLM, before": (0.075, 0.095, 0.033, 0.012, 0.015, 0.455),
    "paper: PokeVLM": (0.163, 0.194, 0.260, 0.180, 0.169, 0.531),
}
"""Row -> scores as printed, in [0, 1]. How the paper prompts and parses is not published."""
MISSING = ""


@dataclass(frozen=True)
class Cell:
    """A score of ours with its interval, strict score, and chance."""

    official: Mapping[str, float] | None
    strict: Mapping[str, float] | None
    chance: float | None


def cells_of(summaries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Cell]]:
    """Model -> column -> cell, of one or more `summary.json`."""
    rows: dict[str, dict[str, Cell]] = {}
    for summary in summaries:
        row = rows.setdefault(str(summary["model"]), {})
        for part in summary["parts"].values():
            row[part["column"]] = Cell(part["official"], part["strict"], part["chance"])
    return rows


def as_markdown(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the paper, then for every model its official and strict scores; at the end what chance reaches."""
    rows = cells_of(summaries)
    columns = [name for name in COLUMNS if any(name in row for row in rows.values())]
    lines = [["", *columns], ["---", *("---:" for _ in columns)]]
    for name, scores in PAPER.items():
        lines.append([name, *(f"{scores[COLUMNS.index(column)]:.3f}" for column in columns)])
    for model, row in rows.items():
        cells = [row.get(column) for column in columns]
        lines.append([f"ours: {model}", *(_score(cell.official) if cell else MISSING for cell in cells)])
        lines.append([f"ours: {model}, strict", *(_score(cell.strict) if cell else MISSING for cell in cells)])
    chances = [next((row[column].chance for row in rows.values() if column in row), None) for column in columns]
    lines.append(["chance", *(MISSING if value is None else f"{value:.3f}" for value in chances)])
    table = "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)
    notes = "\n".join(f"- {_escaped(label)}" for label in _labels(summaries))
    legend = (
        f"Rows of the paper: {SOURCE}, as printed. Ours: official score with a 95 % bootstrap interval over images; "
        "strict: replies that cannot be read count 0. Chance: a random pixel, or a random option."
    )
    return "\n\n".join([SIGNATURE, legend, table, *([notes] if notes else [])]) + "\n"


def _labels(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(f"{one['benchmark']}: {label}" for one in summaries for label in one["labels"]))


def _score(score: Mapping[str, float] | None) -> str:
    return MISSING if score is None else f"{score['score']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def _escaped(text: str) -> str:
    return printable(text).replace("\n", " ").replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
