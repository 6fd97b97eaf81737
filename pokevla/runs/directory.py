"""The directory of a run: what its files are called, and its recipe. No torch: it answers at once.

    recipe.yaml        the resolved recipe; a job that is started again knows nothing else
    manifest.json      what made the run, with every restart           (pokevla.telemetry.manifest)
    metrics.jsonl      a line of figures every few steps               (pokevla.telemetry.writers)
    events.jsonl       what happened to it, and when                   (pokevla.telemetry.jsonl)
    tensorboard/       the same figures as curves                      (pokevla.telemetry.tensorboard)
    wandb/, wandb_id   the same at Weights & Biases                    (pokevla.telemetry.weights_and_biases)
    logs/              one file per rank                               (pokevla.telemetry.logging)
    heartbeat/         where each rank is                              (pokevla.telemetry.heartbeat)
    checkpoints/       one folder per saved step                       (pokevla.runs.checkpoints)
    statistics.json    normalisation of a robot mixture
    slurm.json         the jobs that were submitted for it             (slurm.record)
    export/            the finished model

Each name is written once: here, or in the module that is named beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pokevla.errors import UsageError
from pokevla.recipe.kinds import AnyRecipe, TrainingRecipe, training_of
from pokevla.recipe.load import load_recipe
from pokevla.recipe.schema import TrainRecipe
from pokevla.telemetry.manifest import MANIFEST

RECIPE = "recipe.yaml"
CHECKPOINTS = "checkpoints"
STATISTICS = "statistics.json"
"""In the run, so that an export needs no dataset, and in the exported model."""
SUBMITTED = "slurm.json"
EXPORT = "export"
"""Folder of the exported model. It is there when, and only when, the run is finished."""
EXPORT_CONFIG = "config.json"
"""What an exported model is; without it the folder loads as nothing."""
EXPORT_WEIGHTS = "model.safetensors"


def run_directory(recipe: AnyRecipe | TrainRecipe) -> Path:
    """Where the job of a recipe keeps its files."""
    return recipe.output / recipe.name


def remark_on_existing_run(recipe: AnyRecipe) -> list[str]:
    """What to know before a training whose run has begun already."""
    run_dir = run_directory(recipe)
    if not (run_dir / MANIFEST).is_file():
        return []
    return [f"{run_dir} exists already. `pokevla resume {run_dir}` goes on with it."]


def holds_recipe(folder: Path) -> bool:
    """Whether `folder` is a run directory, or that of another job: a recipe's name is the mark of both."""
    return (folder / RECIPE).is_file()


def read_run_recipe(run_dir: Path, overrides: Sequence[str] = ()) -> TrainingRecipe:
    """The recipe of a training run, with overrides (`field=value`) put in.

    Raises:
        UsageError: `run_dir` is not a run directory of training.
        RecipeError: an override that makes no sense.
    """
    if not holds_recipe(run_dir):
        raise UsageError(f"{run_dir} is not a run directory: it has no {RECIPE}.", "Name one below `runs/`.")
    job = load_recipe(run_dir / RECIPE, overrides).recipe
    recipe = training_of(job)
    if recipe is None:
        raise UsageError(f"{run_dir} is a run of kind {job.kind}, not of training.")
    return recipe


def is_exported(run_dir: Path) -> bool:
    """Whether the run is finished: its model is exported."""
    return (run_dir / EXPORT / EXPORT_CONFIG).is_file()


def find_export(path: Path) -> Path | None:
    """The exported model at `path`, which is its folder or a run directory; None if there is none."""
    return next((folder for folder in (path, path / EXPORT) if (folder / EXPORT_WEIGHTS).is_file()), None)
