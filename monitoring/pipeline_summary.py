"""`OUTPUT/summary.json`: results of a pipeline, computed from the files of its stages.

It reads `pretrain` and `posttrain` (run directories), `grounding/summary.json`, `evaluation/summary.json` and
`stages.json`. The summary leaves out what does not exist.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from typing_extensions import TypedDict

from pokevla.files import texts
from pokevla.files.records import as_type
from pokevla.telemetry.figures import duration
from pokevla.telemetry.jsonl import iterate_jsonl
from pokevla.telemetry.writers import METRICS

BEFORE, AFTER = "before", "after"
"""Names of the two models in the grounding recipe."""


_AGAIN = "Run the stage that writes it again."


class StageRow(TypedDict):
    """A finished stage."""

    name: str
    command: str
    seconds: float
    peak_memory_gib: float


class _Stages(TypedDict):
    stages: list[StageRow]


def read_json(path: Path) -> Any | None:
    """Content of a JSON file; None if it does not exist. DataError if it is not JSON."""
    return texts.read_json(path, remedy=_AGAIN) if path.exists() else None


def read_stages(path: Path) -> list[StageRow]:
    """The finished stages of a pipeline, from its `stages.json`; none without the file. DataError if it is damaged."""
    content = read_json(path)
    return [] if content is None else as_type(content, _Stages, path, remedy=_AGAIN)["stages"]


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Lines of `metrics.jsonl` with a step, sorted by step. After a resume the later line of a step wins."""
    path = run / METRICS
    if not path.is_file():
        return []
    by_step: dict[int, dict[str, Any]] = {}
    for row in iterate_jsonl(path):
        if "step" in row:
            by_step.setdefault(row["step"], {}).update(row)
    return [by_step[step] for step in sorted(by_step)]


def build_summary(output: Path) -> dict[str, Any]:
    """The summary of the pipeline in `output`."""
    summary: dict[str, Any] = {}
    stages = read_stages(output / "stages.json")
    summary["stages"] = {stage["name"]: stage["seconds"] for stage in stages}
    grounding = read_json(output / "grounding" / "summary.json")
    if grounding is not None:
        summary["pretrain"] = {
            "point_accuracy_before": _of(grounding, BEFORE, "point_accuracy"),
            "point_accuracy_after": _of(grounding, AFTER, "point_accuracy"),
        }
    losses = [row["loss"] for row in read_metrics(output / "posttrain") if "loss" in row]
    if losses:
        summary["posttrain"] = {"loss_first": losses[0], "loss_last": losses[-1]}
    evaluation = read_json(output / "evaluation" / "summary.json")
    if evaluation is not None:
        keys = ("successes", "trials", "crashed", "low", "high")
        summary["evaluation"] = {name: {key: row[key] for key in keys} for name, row in evaluation["policies"].items()}
    peaks = [stage["peak_memory_gib"] for stage in stages]
    summary["peak_memory_gib"] = max(peaks) if peaks else None
    return summary


def _of(grounding: dict[str, Any], model: str, figure: str) -> float | None:
    return grounding[model][figure] if model in grounding else None


def write_summary(output: Path) -> dict[str, Any]:
    """Build the summary and write it to `output/summary.json`."""
    summary = build_summary(output)
    texts.write_json(output / "summary.json", summary)
    return summary


def beats_all(summary: dict[str, Any]) -> bool | None:
    """Whether `trained` has a higher success rate than every other policy; None if there is nothing to compare."""
    policies = summary.get("evaluation", {})
    if "trained" not in policies or len(policies) < 2:
        return None
    trained = _rate(policies["trained"])
    return all(trained > _rate(row) for name, row in policies.items() if name != "trained")


def _rate(row: dict[str, Any]) -> float:
    return row["successes"] / row["trials"] if row["trials"] else 0.0


def verdict(summary: dict[str, Any]) -> str:
    """One line: does the trained policy beat all others?"""
    answer = beats_all(summary)
    if answer is None:
        return "No verdict: the pipeline has not evaluated a trained policy and others."
    policies = summary["evaluation"]
    figures = ", ".join(f"{name} {row['successes']}/{row['trials']}" for name, row in policies.items())
    others = max(row["high"] for name, row in policies.items() if name != "trained")
    apart = "intervals apart" if policies["trained"]["low"] > others else "intervals overlap"
    return f"Does the trained policy beat all others? {'Yes' if answer else 'No'} ({figures}; {apart})."


def summary_tables(summary: dict[str, Any]) -> list[Table]:
    """Tables for the terminal: stages, learning, policies; without those that have no row."""
    stages = _table("Stages", "stage", "time")
    for name, seconds in summary["stages"].items():
        stages.add_row(name, duration(seconds))
    stages.add_row("all", duration(sum(summary["stages"].values())), style="bold")
    learning = _table("Learning", "figure", "before", "after")
    if "pretrain" in summary:
        row = summary["pretrain"]
        accuracies = (row["point_accuracy_before"], row["point_accuracy_after"])
        learning.add_row("points inside the mask", *map(_text, accuracies))
    if "posttrain" in summary:
        row = summary["posttrain"]
        learning.add_row("post-training loss", _text(row["loss_first"]), _text(row["loss_last"]))
    learning.add_row("peak memory, GiB", "", _text(summary["peak_memory_gib"]))
    policies = _table("Trials", "policy", "successes", "95 % interval", "crashed")
    for name, row in summary.get("evaluation", {}).items():
        interval = f"{row['low']:.2f} to {row['high']:.2f}"
        policies.add_row(name, f"{row['successes']}/{row['trials']}", interval, str(row["crashed"]))
    return [table for table in (stages, learning, policies) if table.row_count]


def _table(title: str, first: str, *figures: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in figures:
        table.add_column(name, justify="right")
    return table


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
