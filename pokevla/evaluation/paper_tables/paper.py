"""The tables of the paper, as printed (`paper.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

from pokevla.errors import UsageError
from pokevla.files.texts import read_text

TableName = Literal["IV", "V", "VI", "VII"]
TOTAL = "Total"


@dataclass(frozen=True)
class PaperRow:
    """A method, with its success rates in percent in the order of the table's columns."""

    id: str
    name: str
    parameters_b: float | None
    trained_on: str | None
    percent: tuple[float, ...]


@dataclass(frozen=True)
class PaperTable:
    """One table. The last column is the total; the others are suites and perturbations."""

    name: str
    title: str
    perturbed: bool  # trials of LIBERO-Plus
    trials: Mapping[str, int]  # suite -> trials of the paper
    suites: Mapping[str, str]  # column -> suite
    perturbations: Mapping[str, str]  # column -> category of LIBERO-Plus; empty without perturbations
    rows: tuple[PaperRow, ...]
    source: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Titles of the columns of success rates."""
        return (*self.suites, *self.perturbations, TOTAL)

    def row(self, row_id: str) -> PaperRow | None:
        """The row with this id; None if there is none."""
        return next((row for row in self.rows if row.id == row_id), None)


@cache
def paper_tables() -> Mapping[str, PaperTable]:
    """All tables by name."""
    content: Any = YAML(typ="safe").load(read_text(Path(__file__).with_name("paper.yaml")))
    tables = {}
    for name, table in content["tables"].items():
        rows = tuple(
            PaperRow(
                row["id"],
                row["name"],
                row.get("parameters_b"),
                row.get("trained_on"),
                tuple(map(float, row["percent"])),
            )
            for row in table["rows"]
        )
        perturbations = content["perturbations"] if table["perturbed"] else {}
        tables[name] = PaperTable(
            name, table["title"], table["perturbed"], table["trials"], content["suites"], perturbations, rows,
            content["source"],
        )  # fmt: skip
    return tables


def get_table(name: str) -> PaperTable:
    """The table of this name. UsageError if there is none."""
    tables = paper_tables()
    if name.upper() not in tables:
        raise UsageError(f"There is no table {name!r}.", f"Tables: {', '.join(tables)}.")
    return tables[name.upper()]
