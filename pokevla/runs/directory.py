"""The directory of a run: file names, and reading its recipe. Without torch, so that commands start fast.

    recipe.yaml        the resolved recipe; all that a restarted job reads
    manifest.json      what produced the run, with every restart       (pokevla.telemetry.manifest)
    metrics.jsonl      a line of metrics every few steps               (pokevla.telemetry.writers)
    events.jsonl       what happened to it, and when                   (pokevla.telemetry.jsonl)
    tensorboard/       the same metrics as curves                      (pokevla.telemetry.tensorboard)
    wandb/, wandb_id   the same at Weights & Biases                    (pokevla.telemetry.weights_and_biases)
    logs/              one file per rank                               (pokevla.telemetry.logging)
    heartbeat/         step and phase of each rank                     (pokevla.telemetry.heartbeat)
    checkpoints/       one folder per saved step                       (pokevla.runs.checkpoints)
    statistics.json    normalisation of a robot mixture
    slurm.json         the jobs that were submitted for it             (pokevla.jobs.record)
    export/            the finished model

Each name is defined once: here, or in the module named beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pokevla.errors import DataError, UsageError, command_line
from pokevla.files.ownership import refuse_overlap
from pokevla.files.paths import absolute
from pokevla.recipe.kinds import AnyRecipe, TrainingRecipe, training_of
from pokevla.recipe.load import OVERRIDE, load_recipe
from pokevla.recipe.paths import paths_of, with_absolute_paths
from pokevla.recipe.schema import TrainRecipe
from pokevla.telemetry.manifest import MANIFEST, read_manifest

RECIPE = "recipe.yaml"
CHECKPOINTS = "checkpoints"
STATISTICS = "statistics.json"
"""In the run, so that an export needs no dataset, and in the exported model."""
TRAINED_ON = "trained_on.json"
"""In the run: what an evaluation has to agree with (`pokevla.recipe.checking.recorded`)."""
SUBMITTED = "slurm.json"
EXPORT = "export"
"""Folder of the exported model. It exists if and only if the run is finished."""
EXPORT_CONFIG = "config.json"
"""Configuration of an exported model; a folder without it is not an export."""
EXPORT_WEIGHTS = "model.safetensors"
_CHECKPOINT = f"{CHECKPOINTS}/*step-*"
RUN_CONTENTS = (
    RECIPE, MANIFEST, STATISTICS, TRAINED_ON, SUBMITTED, "dirty.patch", "metrics.jsonl", "events.jsonl",
    "wandb_id", "wandb/**", "tensorboard/**events.out.tfevents.*", "explain/*.png", "explain/*.mp4",
    "logs/rank_*", "heartbeat/rank_*.json", "slurm/**", "code/**", ".lock",
    "**.tmp-*", f"{_CHECKPOINT}/COMPLETE.json", f"{_CHECKPOINT}/HEALTHY", f"{_CHECKPOINT}/state/*.pt",
    f"{_CHECKPOINT}/universal/**", f"{EXPORT}*/model*.safetensors", f"{EXPORT}*/model.safetensors.index.json",
    f"{EXPORT}*/{EXPORT_CONFIG}", f"{EXPORT}*/{STATISTICS}", f"{EXPORT}*/README.md", f"{EXPORT}*/tokenizer/**",
)  # fmt: skip
"""Patterns (`pokevla.files.ownership`) of everything that is written into a run: a run may be deleted only if nothing
else lies in it."""


def run_directory(recipe: AnyRecipe | TrainRecipe) -> Path:
    """Directory that holds the files of a recipe's job: `output/name`."""
    return recipe.output / recipe.name


def refuse_overlapping_output(recipe: AnyRecipe | TrainRecipe) -> None:
    """Refuse a recipe whose job would write into what it reads.

    Raises:
        UsageError: the job's directory is, contains or lies in a dataset, cache, run or file that the recipe names.
    """
    refuse_overlap(run_directory(recipe), [path for field, path in paths_of(recipe).items() if field != "output"])


def remark_on_existing_run(recipe: AnyRecipe) -> list[str]:
    """A remark for `pokevla validate` if the run of a training recipe exists already; otherwise nothing."""
    run_dir = run_directory(recipe)
    if not (run_dir / MANIFEST).is_file():
        return []
    return [f"{run_dir} exists already. `{command_line('resume', run_dir)}` continues it."]


def holds_recipe(folder: Path) -> bool:
    """Whether `folder` is the directory of a run or of another job: it contains a recipe."""
    return (folder / RECIPE).is_file()


def read_run_recipe(run_dir: Path, overrides: Sequence[str] = ()) -> TrainingRecipe:
    """The recipe of a training run, with overrides (`field=value`) applied and all paths absolute.

    A path that no longer exists is looked for from the working directory as the recipe spelled it: a project may have
    moved as a whole. Relative paths of runs from before paths were kept absolute begin where the run was started.

    Raises:
        UsageError: `run_dir` is not a run directory of training.
        RecipeError: an override is invalid.
    """
    if not holds_recipe(run_dir):
        raise UsageError(f"{run_dir} is not a run directory: it has no {RECIPE}.", "Name one below `runs/`.")
    loaded = load_recipe(run_dir / RECIPE, overrides)
    recipe = training_of(loaded.recipe)
    if recipe is None:
        raise UsageError(f"{run_dir} is a run of kind {loaded.recipe.kind}, not of training.")
    started_in = _started_in(run_dir)

    def place(field: str, path: Path) -> Path:
        base = Path.cwd() if loaded.origins.get(field) == OVERRIDE else started_in
        written = Path(recipe.paths_as_written.get(field, path))
        choices = (absolute(base / path), absolute(written))
        return next((choice for choice in choices if choice.exists()), choices[0])

    return with_absolute_paths(recipe, place)


def _started_in(run_dir: Path) -> Path:
    """Working directory of the first start; the present one if the manifest does not tell."""
    with suppress(DataError, KeyError, TypeError):
        return Path(read_manifest(run_dir)["start"]["cwd"])
    return Path.cwd()


def is_exported(run_dir: Path) -> bool:
    """Whether the run is finished, so that its model is exported."""
    return (run_dir / EXPORT / EXPORT_CONFIG).is_file()


def find_export(path: Path) -> Path | None:
    """Folder of the exported model at `path`, which is that folder or a run directory; None if there is none."""
    return next((folder for folder in (path, path / EXPORT) if (folder / EXPORT_WEIGHTS).is_file()), None)
