"""Inputs of a report, read from the directories of pipelines, runs and evaluations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monitoring.pipeline_summary import StageRow, build_summary, read_json, read_metrics, read_stages
from pokevla.errors import UsageError
from pokevla.evaluation.vlm_benchmarks.results import FOLDER
from pokevla.recipe.kinds import kind_of, model_of, training_of
from pokevla.recipe.load import load_recipe
from pokevla.recipe.schema import TrainRecipe
from pokevla.recipe.sections import TeacherConfig
from pokevla.runs.directory import RECIPE, holds_recipe
from pokevla.telemetry.manifest import MANIFEST
from pokevla.telemetry.writers import METRICS

VIDEOS_PER_POLICY = 2


@dataclass(frozen=True)
class Run:
    """A training run."""

    folder: Path
    recipe: TrainRecipe | None
    metrics: list[dict[str, Any]]
    manifest: dict[str, Any]

    @property
    def title(self) -> str:
        """What it trained."""
        if self.recipe is None:
            return f"Training run {self.folder.name}"
        stage = kind_of(self.recipe).title
        return f"{stage} without images" if self.recipe.data.blank_images else stage


@dataclass
class ReportInputs:
    """Content of the given directories."""

    stages: list[StageRow] = field(default_factory=list)
    summary: dict[str, Any] | None = None
    runs: list[Run] = field(default_factory=list)
    trials: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    grounding: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    open_loop: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    vlm_benchmarks: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)


def read_inputs(folders: list[Path]) -> ReportInputs:
    """Read pipelines, runs and evaluations. UsageError for a directory that is none of them."""
    inputs = ReportInputs()
    for folder in folders:
        if (folder / "stages.json").is_file():
            inputs.stages += read_stages(folder / "stages.json")
            inputs.summary = build_summary(folder)
            for child in sorted(path for path in folder.iterdir() if path.is_dir()):
                _add(inputs, child)
            inputs.runs.sort(key=_reading_order)
        elif not _add(inputs, folder):
            raise UsageError(
                f"{folder} is not a pipeline, run or evaluation.",
                "A run holds metrics.jsonl, an evaluation summary.json, a pipeline stages.json.",
            )
    return inputs


def _reading_order(run: Run) -> tuple[bool, bool, str]:
    """Sort key: pre-training first, controls without images last."""
    recipe = run.recipe
    blank = recipe is not None and recipe.data.blank_images
    return recipe is None or model_of(recipe) != "pokevlm", blank, run.folder.name


def _add(inputs: ReportInputs, folder: Path) -> bool:
    if (folder / METRICS).is_file():
        recipe = training_of(load_recipe(folder / RECIPE).recipe) if holds_recipe(folder) else None
        manifest = read_json(folder / MANIFEST) or {}
        inputs.runs.append(Run(folder, recipe, read_metrics(folder), manifest))
        return True
    summary = read_json(folder / "summary.json")
    if not isinstance(summary, dict):
        return False
    if summary.get("kind") == "open_loop":
        inputs.open_loop.append((folder, summary))
        return True
    if summary.get("kind") == FOLDER.kind:
        inputs.vlm_benchmarks.append((folder, summary))
        return True
    if "policies" in summary:
        inputs.trials.append((folder, summary))
        return True
    if summary and all(isinstance(row, dict) and "point_accuracy" in row for row in summary.values()):
        inputs.grounding.append((folder, summary))
        return True
    return False


def warnings_of(inputs: ReportInputs) -> list[str]:
    """Warnings that affect how to read the results: random teachers, training from scratch, fast rendering."""
    labels: list[str] = []
    for run in inputs.runs:
        recipe = run.recipe
        if recipe is None:
            continue
        if recipe.model.vlm is None:
            labels.append(
                f"{run.title} starts from random weights (preset {recipe.model.preset}), not from a published model."
            )
        trained = recipe.trainable
        labels.append(
            f"{run.title} trains: vision {trained.vision}, projector {trained.projector}, "
            f"language model {trained.language_model}; the heads in full where there are any."
        )
        cache = recipe.feature_cache
        if cache is not None:
            labels += [_teacher_label(teacher) for teacher in cache.all_teachers.values() if not teacher.weights]
        if recipe.data.blank_images:
            labels.append(f"{run.title} was trained without images (blank_images), as a control.")
        labels += _loss_labels(run.title, recipe)
    for _, summary in inputs.trials:
        settings = summary["settings"]
        if settings["fast_rendering"]:
            labels.append("Trials use fast rendering: do not compare these results with published ones.")
        if settings["target_shift_m"] is not None:
            low, high = (f"{100 * metres:g} cm" for metres in settings["target_shift_m"])
            labels.append(
                f"In every trial the target object is moved at random by up to {high} in x and y, "
                f"and by at least {low} in one of them."
            )
    return list(dict.fromkeys(labels))


def _loss_labels(title: str, recipe: TrainRecipe) -> list[str]:
    """The losses of the paper that a post-training does without."""
    if recipe.loss_weights is None:
        return []
    off = {
        "target masks": recipe.loss_weights.segmentation.weight == 0.0,
        "geometry alignment": recipe.loss_weights.geometry == 0.0,
    }
    absent = [name for name, is_off in off.items() if is_off]
    return [f"{title} was trained without {' and '.join(absent)}: the paper has both."] if absent else []


def _teacher_label(teacher: TeacherConfig) -> str:
    what = {
        "sam": "masks are decoded from the features of an untrained encoder",
        "vggt": "the geometry loss aligns with features that carry no knowledge of geometry",
    }.get(teacher.kind, "its features carry no knowledge")
    return f"The {teacher.kind.upper()} teacher (preset {teacher.preset}) has random weights: {what}."
