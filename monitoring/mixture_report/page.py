"""The report of a mixture: one self-contained HTML page, without network and without another file.

Its bytes depend on the mixture, not on when or where it is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monitoring.data_card.plots import CHART, bars, cells, page_templates, size, spaced
from pokevla.data.curation.rules import FLAGGED, PASSED_OVER, REJECTED, SCREENED
from pokevla.data.mixing.report.alarms import input_name
from pokevla.data.mixing.summary import (
    PAPER_SOURCES,
    REPORT_NAME,
    REPORT_SIGNATURE,
    STEP_TEXTS,
    STEPS,
    CountFacts,
    MixtureSummary,
)
from pokevla.files.labels import printable
from pokevla.files.ownership import refuse_other_file
from pokevla.files.texts import write_text
from pokevla.telemetry.figures import percent

_MEANINGS = {code: text.replace("`", "") for code, text in {**REJECTED, **PASSED_OVER, **FLAGGED, **SCREENED}.items()}
_STEP_NAMES = {name: name.replace("_", " ") for name in STEPS}


def refuse_report_output(out: Path) -> None:
    """Raise DataError if `out` exists and is not the report of a mixture."""
    refuse_other_file(out, REPORT_SIGNATURE, "mixture report")


def write_report(folder: Path, summary: MixtureSummary, figures: Mapping[str, Any], out: Path | None = None) -> Path:
    """Write the page of a mixture; an earlier one is replaced.

    Args:
        folder: of the mixture, gets `report.html` unless `out` names another file.
        figures: of `pokevla.data.mixing.report.figures.mixture_figures`.

    Raises:
        DataError: the file exists and is not such a page, or cannot be written.
    """
    path = folder / REPORT_NAME if out is None else out
    refuse_report_output(path)
    templates = page_templates(Path(__file__).parent)
    templates.filters["shown"] = printable
    write_text(path, templates.get_template("mixture.html.j2").render(_context(summary, figures)))
    return path


def _context(summary: MixtureSummary, figures: Mapping[str, Any]) -> dict[str, Any]:
    totals = {
        "read": sum(row.read for row in summary.counts),
        "selected": summary.selected,
        "budget": sum(each.budget for each in summary.categories),
        "paper": sum(each.paper for each in summary.categories),
    }
    return {
        **figures,
        "summary": summary,
        "chart": CHART,
        "tiles": _tiles(summary, figures, totals),
        "totals": totals,
        "table_one": summary.table_one(),
        "paper_sources": PAPER_SOURCES,
        "steps": _STEP_NAMES,
        "step_texts": STEP_TEXTS,
        "count_groups": _count_groups(summary),
        "step_totals": {step: count for step, count in summary.step_totals().items() if step != "read"},
        "left_out": [(code, _MEANINGS.get(code, ""), count) for code, count in summary.left_out_codes().items()],
        "inputs": [(input_name(each, summary), each) for each in summary.inputs],
        "rejects": _rejects(summary),
        "maps": [{**row, "cells": cells(row["grid"])} for row in figures["positions"]],
        "letter_plots": [
            {**row, "before_bars": _letter_bars(row["before"]), "after_bars": _letter_bars(row["after"])}
            for row in figures["letters"]
        ],
        "point_plots": [{**row, "bars": _point_bars(row["counts"])} for row in figures["points"]],
        "length_plots": [
            {**row, "question_bars": bars(row["questions"]), "answer_bars": bars(row["answers"])}
            for row in figures["lengths"]["rows"]
            if row["unit"] == figures["lengths"]["units"][0]
        ],
        "sample_groups": _sample_groups(figures["pictures"]),
        "recipe": json.dumps(summary.recipe, indent=1, ensure_ascii=False),
    }


def _tiles(summary: MixtureSummary, figures: Mapping[str, Any], totals: Mapping[str, int]) -> list[dict[str, str]]:
    size_bytes = sum(facts["size_bytes"] for facts in summary.datasets.values())
    sources = {(row.category, row.source) for row in summary.counts if row.selected}
    return [
        {"value": spaced(summary.selected), "name": f"samples of {spaced(totals['read'])} read"},
        *([{"value": spaced(summary.written), "name": "conversations, into which they were joined"}]
          if summary.written != summary.selected else []),
        {"value": spaced(totals["budget"]), "name": "samples in the budget"},
        {"value": percent(summary.selected / totals["paper"] if totals["paper"] else None),
         "name": f"of the paper's {spaced(totals['paper'])}"},
        {"value": str(len({source for _, source in sources})), "name": "sources"},
        {"value": spaced(sum(row["distinct"] for row in figures["groups"] if row["source"] is None)),
         "name": "different questions"},
        {"value": size(size_bytes), "name": "in shards"},
    ]  # fmt: skip


def _count_groups(summary: MixtureSummary) -> list[dict[str, Any]]:
    """For each category its totals and its rows of counts, with what was left out in a text."""
    names = list(dict.fromkeys(row.category for row in summary.counts))
    return [
        {
            "category": name,
            "totals": summary.step_totals(name),
            "rows": [_count_row(row) for row in summary.counts if row.category == name],
        }
        for name in names
    ]


def _count_row(row: CountFacts) -> dict[str, Any]:
    values = {step: getattr(row, step) for step in STEPS}
    values["left_out"] = sum(row.left_out.values())
    codes = ", ".join(f"{code} {spaced(count)}" for code, count in row.left_out.items())
    return {"facts": row, "values": values, "codes": codes}


def _rejects(summary: MixtureSummary) -> list[dict[str, Any]]:
    """For each reason code of the conversions: its meaning, and how many records of which input."""
    found: dict[str, list[tuple[str, int]]] = {}
    for each in summary.inputs:
        for code, count in each.rejected.items():
            found.setdefault(code, []).append((input_name(each, summary), count))
    return [
        {"code": code, "meaning": _MEANINGS.get(code, ""), "count": sum(count for _, count in its), "inputs": its}
        for code, its in sorted(found.items())
    ]


def _letter_bars(counts: Sequence[int]) -> list[dict[str, Any]]:
    """A bar for each letter: height in percent of the highest, and its share."""
    highest, total = max([*counts, 1]), max(1, sum(counts))
    return [
        {"height": round(100 * count / highest, 1), "share": count / total if any(counts) else None, "count": count}
        for count in counts
    ]


def _point_bars(counts: Sequence[int]) -> dict[str, Any]:
    """Bars of the numbers of points from the smallest to the largest that occur."""
    used = [number for number, count in enumerate(counts) if count] or [0]
    return bars({"counts": counts[used[0] : used[-1] + 1], "low": used[0], "high": used[-1], "below": 0, "above": 0})


def _sample_groups(pictures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = dict.fromkeys((each["category"], each["source"]) for each in pictures)
    return [
        {
            "category": category,
            "source": source,
            "samples": [each for each in pictures if (each["category"], each["source"]) == (category, source)],
        }
        for category, source in names
    ]
