"""The data card of a dataset: one self-contained HTML page, without network and without another file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monitoring.data_card.plots import CHART, LEFT, RIGHT, bars, cells, page_templates, spaced
from pokevla.files.ownership import refuse_other_file
from pokevla.files.texts import write_text
from pokevla.telemetry.figures import duration, number

SIGNATURE = b"<title>PokeVLA data card</title>"
"""What tells a card from any other page. In the head of the template."""
USUAL_OUTSIDE = 0.02
"""Share outside of q01 to q99 by definition, over the split that they were computed from."""
MUCH_OUTSIDE = 0.05
"""Share from which a column is marked (ours)."""
LISTED_TEXTS, LISTED_ODD = 40, 60


def refuse_card_output(out: Path) -> None:
    """Raise DataError if `out` exists and is not a data card."""
    refuse_other_file(out, SIGNATURE, "data card")


def write_card(figures: Mapping[str, Any], out: Path) -> Path:
    """Write the page of `pokevla.data.card.figures.dataset_figures` to `out`; an earlier card is replaced.

    Raises:
        DataError: `out` exists and is not a data card.
    """
    refuse_card_output(out)
    write_text(out, page_templates().get_template("card.html.j2").render(_context(figures)))
    return out


def _context(figures: Mapping[str, Any]) -> dict[str, Any]:
    robot, vlm = figures.get("robot"), figures.get("vlm")
    context: dict[str, Any] = {
        **figures,
        "title": figures["name"],
        "tiles": _tiles(figures),
        "notes": _notes(figures),
        "chart": CHART,
        "usual_outside": USUAL_OUTSIDE,
        "listed_texts": LISTED_TEXTS,
        "listed_odd": LISTED_ODD,
        "size_mib": figures["size_bytes"] / 2**20,
    }
    if robot is not None:
        context |= {
            "lengths": bars(robot["lengths"]),
            "groups": [
                {"title": "Actions", "columns": [_column(column) for column in robot["actions"]]},
                {"title": "Proprio", "columns": [_column(column) for column in robot["proprio"]]},
            ],
        }
    if vlm is not None:
        context |= {
            "question_lengths": bars(vlm["question_lengths"]),
            "answer_lengths": bars(vlm["answer_lengths"]),
            "maps": [
                {"title": title, "count": vlm[name]["count"], "cells": cells(vlm[name]["grid"])}
                for name, title in (("points", "Points"), ("boxes", "Centres of boxes"))
                if vlm[name]["count"]
            ],
            "areas": bars({"low": 0.0, "high": 1.0, "counts": vlm["boxes"]["areas"], "below": 0, "above": 0}),
        }
    return context


def _tiles(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    robot, vlm = figures.get("robot"), figures.get("vlm")
    tiles = [{"value": spaced(figures["num_samples"]), "name": "samples"}]
    if robot is not None:
        tiles += [
            {"value": spaced(robot["episodes"]), "name": "episodes"},
            {"value": duration(robot["hours"] * 3600), "name": "of recording"},
            {"value": spaced(robot["instructions"]["distinct"]), "name": "different instructions"},
        ]
    if vlm is not None:
        tiles += [
            {"value": spaced(figures["equal_images"]["distinct"]), "name": "different images"},
            {"value": spaced(vlm["question_texts"]["distinct"]), "name": "different questions"},
        ]
    return [*tiles, {"value": f"{figures['size_bytes'] / 2**20:.4g} MiB", "name": f"in {figures['shards']} shards"}]


def _notes(figures: Mapping[str, Any]) -> list[str]:
    """What a reader should know first, the worst first."""
    robot, vlm, equal = figures.get("robot"), figures.get("vlm"), figures["equal_images"]
    notes = [f"Damaged: {sentence}" for sentence in figures["damaged"][:5]]
    if len(figures["damaged"]) > 5:
        notes.append(f"{len(figures['damaged']) - 5} more samples could not be read.")
    if robot is not None:
        notes += [f"Bad number: {sentence}" for sentence in robot["alarms"][:5]]
        notes += _robot_notes(robot)
    for what, texts in _texts(robot, vlm):
        if texts["empty"]:
            notes.append(f"{spaced(texts['empty'])} {what} are empty.")
        if texts["variants"]:
            notes.append(
                f"Of the {what}, {len(texts['variants'])} come in several spellings (case, spaces, punctuation)."
            )
    if robot is not None and equal["repeats"]:
        parts = f"{spaced(equal['within'])} within an episode, {spaced(equal['across'])} across episodes"
        notes.append(f"{spaced(equal['repeats'])} images equal an earlier one to the last bit: {parts}.")
    return notes


def _texts(robot: Mapping[str, Any] | None, vlm: Mapping[str, Any] | None) -> list[tuple[str, Mapping[str, Any]]]:
    if robot is not None:
        return [("instructions", robot["instructions"])]
    return [] if vlm is None else [("questions", vlm["question_texts"])]


def _robot_notes(robot: Mapping[str, Any]) -> list[str]:
    notes = []
    same = robot["equal_actions"]
    if same["groups"]:
        notes.append(f"{same['episodes']} episodes share their actions with another one: recorded or copied twice?")
    if robot["odd"]["episodes"]:
        notes.append(f"{robot['odd']['episodes']} of {robot['episodes']} episodes look wrong in some way.")
    wide = [
        column["name"]
        for column in (*robot["actions"], *robot["proprio"])
        if (column["share_outside"] or 0) > MUCH_OUTSIDE
    ]
    if wide:
        notes.append(f"Much outside of q01 to q99: {', '.join(wide)}.")
    return notes


def _column(column: Mapping[str, Any]) -> dict[str, Any]:
    """A column of numbers with its histogram; lines at q01 and q99, or at open and closed."""
    histogram = column["histogram"]
    marks = {"q01": column["q01"], "q99": column["q99"], **column["marks"]}
    outside = column["share_outside"]
    return {
        **column,
        "bars": bars(histogram),
        "lines": [
            {"name": name, "x": _place(value, histogram), "value": number(float(value))}
            for name, value in marks.items()
            if value is not None
        ],
        "is_wide": outside is not None and outside > MUCH_OUTSIDE,
    }


def _place(value: float, histogram: Mapping[str, Any]) -> float:
    share = (value - histogram["low"]) / (histogram["high"] - histogram["low"])
    return round(LEFT + min(1.0, max(0.0, share)) * (RIGHT - LEFT), 1)
