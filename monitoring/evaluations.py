"""Results of an evaluation, read from its directory: for the list of runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monitoring.pipeline_summary import read_json

SUMMARY = "summary.json"
"""Written last: an evaluation without it is not complete."""
RECORDS = {"episodes.jsonl": "eval", "answers.jsonl": "grounding"}
"""File with one line for each trial or answer -> kind of the evaluation."""


def kind_of_evaluation(folder: Path) -> str | None:
    """`eval` or `grounding`; None if `folder` is not the directory of an evaluation."""
    return next((kind for name, kind in RECORDS.items() if (folder / name).is_file()), None)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """One row for each policy or model: name, successes, trials, crashed, rate, and its 95 % interval; [] if the
    evaluation is not complete.

    For grounding, a success is a point inside the mask. `rate` is None without trials.

    Raises:
        DataError: the summary is not JSON.
    """
    summary = read_json(folder / SUMMARY)
    if not isinstance(summary, dict):
        return []
    if isinstance(policies := summary.get("policies"), dict):
        return [_trials(name, row) for name, row in policies.items()]
    return [_points(name, row) for name, row in summary.items() if "point_accuracy" in row]


def _trials(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    rate = row["successes"] / row["trials"] if row["trials"] else None
    figures = {key: row[key] for key in ("successes", "trials", "crashed", "low", "high")}
    return {"name": name, **figures, "rate": rate}


def _points(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    rate, asked = row["point_accuracy"], row["point_questions"]
    successes = 0 if rate is None else round(rate * asked)
    return {"name": name, "successes": successes, "trials": asked, "crashed": 0, "low": row["point_low"],
            "high": row["point_high"], "rate": rate}  # fmt: skip


def results_text(results: list[dict[str, Any]]) -> str:
    """`trained 19/20 (95 %), untrained 0/20 (0 %)`; crashed trials are named."""
    return ", ".join(
        f"{row['name']} {row['successes']}/{row['trials']}"
        + ("" if row["rate"] is None else f" ({100 * row['rate']:.0f} %)")
        + (f", {row['crashed']} crashed" if row["crashed"] else "")
        for row in results
    )


def count_records(folder: Path) -> int:
    """Trials or answers recorded so far: complete lines of the evaluation's file."""
    paths = (folder / name for name in RECORDS)
    return sum(path.read_bytes().count(b"\n") for path in paths if path.is_file())
