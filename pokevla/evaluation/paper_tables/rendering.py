"""Tables as Markdown, CSV and HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pokevla.evaluation.paper_tables.paper import PaperRow
from pokevla.evaluation.paper_tables.results import OurRow, ResultTable
from pokevla.evaluation.statistics.groups import GroupResult

MISSING = "missing"
SIGNATURES = {
    "tables.md": b"<!-- pokevla eval tables -->",
    "tables.csv": b"table,source,row,",
    "tables.html": b"<title>PokeVLA tables",
}
"""File -> text in its head by which it is recognised when it is replaced."""
LEGEND = (
    "Success rates in percent. Rows of the paper are as printed, without intervals. Ours have Wilson 95 % intervals. "
    f"`{MISSING}`: no such trials, and so no total. `minus paper`: ours minus the row of the paper that it reproduces."
)
_CSV_COLUMNS = (
    "table", "source", "row", "parameters_b", "trained_on", "column", "percent", "low", "high", "successes", "trials",
    "crashed",
)  # fmt: skip


def as_markdown(tables: Sequence[ResultTable]) -> str:
    """All tables as Markdown, with the differences below each."""
    parts = [SIGNATURES["tables.md"].decode(), LEGEND]
    for table in tables:
        head = ["", *table.paper.columns]
        lines = [head, ["---", *("---:" for _ in table.paper.columns)], *_text_rows(table)]
        parts.append(f"## {heading(table)}")
        parts.append("\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines))
        parts.append("What differs:\n\n" + "\n".join(f"- {_escaped(line)}" for line in table.differences))
    return "\n\n".join(parts) + "\n"


def as_csv(tables: Sequence[ResultTable]) -> str:
    """All tables as CSV, one line for each figure; a missing one has empty fields."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for table in tables:
        for row in table.paper.rows:
            for column, percent in zip(table.paper.columns, row.percent, strict=True):
                name = (table.paper.name, "paper", row.name, row.parameters_b, row.trained_on)
                writer.writerow([*name, column, percent, None, None, None, None, None])
        for ours in table.rows:
            for column, cell in zip(table.paper.columns, ours.cells, strict=True):
                name = (table.paper.name, "ours", ours.policy, None, None)
                writer.writerow([*name, column, *_csv_figures(cell)])
    return file.getvalue()


def as_html(tables: Sequence[ResultTable]) -> str:
    """All tables as one page that needs no other file."""
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=select_autoescape(["j2", "html"]), trim_blocks=True)
    content = [
        {
            "heading": heading(table),
            "columns": table.paper.columns,
            "rows": [
                {"ours": place >= len(table.paper.rows), "cells": row} for place, row in enumerate(_text_rows(table))
            ],
            "differences": table.differences,
        }
        for table in tables
    ]
    return environment.get_template("tables.html.j2").render(tables=content, legend=LEGEND.replace("`", ""))


def heading(table: ResultTable) -> str:
    """Title with the source of the paper's rows."""
    return f"Table {table.paper.name}: {table.paper.title} ({table.paper.source})"


def _text_rows(table: ResultTable) -> list[list[str]]:
    """Rows of the paper, then ours, as texts; the first is the name."""
    rows = [[_paper_name(row), *(f"{value:.1f}" for value in row.percent)] for row in table.paper.rows]
    for ours in table.rows:
        rows.append([f"ours: {ours.policy}", *map(_cell, ours.cells)])
        if ours.counterpart is not None:
            rows.append(
                [
                    f"ours: {ours.policy}, minus paper ({_paper_name(ours.counterpart)})",
                    *_distances(ours, ours.counterpart),
                ]
            )
    return rows


def _paper_name(row: PaperRow) -> str:
    details = [f"{row.parameters_b:g} B"] if row.parameters_b is not None else []
    details += [f"trained on {row.trained_on}"] if row.trained_on is not None else []
    return f"{row.name} ({', '.join(details)})" if details else row.name


def _cell(result: GroupResult | None) -> str:
    if result is None or result.rate is None:
        return MISSING
    return f"{100 * result.rate:.1f} ({100 * result.low:.1f} to {100 * result.high:.1f})"


def _distances(ours: OurRow, paper: PaperRow) -> list[str]:
    return [
        MISSING if cell is None or cell.rate is None else f"{100 * cell.rate - percent:+.1f}"
        for cell, percent in zip(ours.cells, paper.percent, strict=True)
    ]


def _csv_figures(cell: GroupResult | None) -> list[float | int | None]:
    if cell is None or cell.rate is None:
        return [None] * 6
    return [
        round(100 * cell.rate, 4), round(100 * cell.low, 4), round(100 * cell.high, 4), cell.successes, cell.trials,
        cell.crashed,
    ]  # fmt: skip


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
