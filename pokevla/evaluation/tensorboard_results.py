"""Writes the results of an evaluation to TensorBoard, at the step of the evaluated model.

Those of a trained model go beside its training curves, `RUN/tensorboard/eval/EVALUATION/POLICY`; all others into the
evaluation's directory, `EVALUATION/tensorboard/POLICY`. Each has its own folder, because TensorBoard stops reading an
event file once a later one is beside it, and the training may still be writing.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from pokevla.evaluation.drawing.videos import read_video, trial_files
from pokevla.files.records import as_type
from pokevla.files.texts import read_json
from pokevla.recipe.schema import EvalRecipe, GroundingRecipe
from pokevla.runs.directory import EXPORT_CONFIG, holds_recipe
from pokevla.telemetry.tensorboard import TENSORBOARD, TensorBoardWriter
from pokevla.weights.base_model import exported_folder


def publish_trials(recipe: EvalRecipe, summary: dict[str, Any]) -> list[Path]:
    """Write success rates, mask overlap and the kept videos of each policy; returns the folders written to."""
    evaluation = recipe.output / recipe.name
    written = []
    for spec in recipe.policies:
        run = spec.run if spec.kind == "model" and not isinstance(spec.run, dict) else None
        folder, step = event_folder(run, evaluation, spec.name)
        with closing(TensorBoardWriter(folder)) as writer:
            writer.scalars(trial_scalars(summary, spec.name), step)
            for trial, path in trial_files(evaluation / "videos", spec.name, recipe.trials.suites).items():
                frames, frames_per_second = read_video(path)
                writer.video(f"trial/{trial}", frames, step, frames_per_second)
        written.append(folder)
    return written


def publish_grounding(recipe: GroundingRecipe, summary: dict[str, Any]) -> list[Path]:
    """Write the share of points inside the mask of each model; returns the folders written to."""
    written = []
    for name, run in recipe.runs.items():
        folder, step = event_folder(run, recipe.output / recipe.name, name)
        with closing(TensorBoardWriter(folder)) as writer:
            writer.scalars(grounding_scalars(summary[name]), step)
        written.append(folder)
    return written


def trial_scalars(summary: dict[str, Any], policy: str) -> dict[str, Any]:
    """Scalars of one policy by tag: over all tasks, and the success rate of each task."""
    row = summary["policies"][policy]
    values = {
        "success_rate/all": _rate(row),
        "success_rate/low_95": row["low"],
        "success_rate/high_95": row["high"],
        "trials": row["trials"],
        "crashed": row["crashed"],
        "mask_iou": row["mask_iou"],
        "mean_steps": row["mean_steps"],
    }
    for suite, figures in summary["suites"].items():
        if policy in figures:
            values[f"success_rate/{suite}"] = _rate(figures[policy])
    for task in summary["tasks"]:
        if policy in task["policies"]:
            values[f"success_rate/{task['suite']}_task_{task['index']}"] = _rate(task["policies"][policy])
    return values


def grounding_scalars(row: dict[str, Any]) -> dict[str, Any]:
    """Scalars of one model by tag, overall and by category of question."""
    values = {
        "point_accuracy/all": row["point_accuracy"],
        "point_accuracy/low_95": row["point_low"],
        "point_accuracy/high_95": row["point_high"],
        "choice_accuracy": row["choice_accuracy"],
        "distinct_points": row["distinct_points"],
        "unreadable": row["unreadable"],
    }
    return values | {f"point_accuracy/{name}": part["accuracy"] for name, part in row["by_category"].items()}


class _Exported(TypedDict):
    step: NotRequired[int]  # absent in an imported model


def event_folder(run: Path | None, evaluation: Path, name: str) -> tuple[Path, int]:
    """Folder for the event file of a policy, and the step of its export (0 without weights of our training)."""
    if run is None:
        return evaluation / TENSORBOARD / name, 0
    config = exported_folder(run) / EXPORT_CONFIG
    step = as_type(read_json(config), _Exported, config).get("step", 0)
    if holds_recipe(run):
        return run / TENSORBOARD / "eval" / evaluation.name / name, step
    return evaluation / TENSORBOARD / name, step


def _rate(row: dict[str, Any]) -> float | None:
    """Success rate; None (no point in the curve) if all trials crashed."""
    return row["successes"] / row["trials"] if row["trials"] else None
