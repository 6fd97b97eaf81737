"""Continuing a run with other resources: what may change, and writing the change to its recipe. Without torch.

`pokevla resume` and `pokevla submit` may change the fields in `pokevla.recipe.values.NEUTRAL`, and the length
(`pokevla.runs.length`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pokevla.data.mixture import dataset_names
from pokevla.errors import DataError, RecipeError, UsageError
from pokevla.files.paths import literal_path
from pokevla.files.texts import write_text
from pokevla.recipe.checking.datasets import read_info
from pokevla.recipe.dump import dump_changed
from pokevla.recipe.kinds import training_of
from pokevla.recipe.load import LoadedRecipe, load_recipe
from pokevla.recipe.paths import AS_WRITTEN, paths_of, with_absolute_paths
from pokevla.recipe.schema import TrainRecipe
from pokevla.recipe.values import LENGTH, LOCATIONS, NEUTRAL, differences, flat_values, learnt_differences
from pokevla.runs.creation import has_progress, run_lock
from pokevla.runs.directory import RECIPE, SUBMITTED, holds_recipe, read_run_recipe
from pokevla.runs.length import refuse_short_length, reopen, with_one_length
from pokevla.telemetry.jsonl import EVENTS
from pokevla.telemetry.manifest import read_manifest

logger = logging.getLogger(__name__)

ORIGIN = "resume"
"""Origin of a value in `recipe.yaml` that was changed when the run was resumed or submitted again."""


def ranks_override(recipe: TrainRecipe, ranks: int) -> list[str]:
    """Overrides that give a run this number of ranks on its current number of nodes.

    Raises:
        UsageError: the ranks cannot be spread evenly.
    """
    resources = recipe.resources
    if ranks < 1 or ranks % resources.nodes:
        raise UsageError(
            f"{ranks} ranks cannot be spread over {resources.nodes} machine(s).",
            "Set resources.nodes=N as well, or use another number of ranks.",
        )
    if resources.gpus_per_node:
        return [f"resources.gpus_per_node={ranks // resources.nodes}"]
    return [f"resources.cpu_ranks={ranks}"]


def changed_recipe(run_dir: Path, overrides: Sequence[str]) -> TrainRecipe:
    """The run's recipe with the overrides applied.

    Raises:
        RecipeError: an override is invalid or changes what is learnt; names every such field.
        UsageError: not a run directory of training, or a length that the run has reached.
    """
    before = read_run_recipe(run_dir)
    if not overrides:
        return before
    after = read_run_recipe(run_dir, with_one_length(before, overrides))
    refuse_other_learning(before, after)
    refuse_short_length(run_dir, before, after)
    return _same_identity(before, after)


def load_run(run_dir: Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """The recipe of a run or another job with the overrides applied, for the directory in which it lies now.

    Raises:
        UsageError, RecipeError: as `changed_recipe` for a training; no run directory.
    """
    if not holds_recipe(run_dir):
        raise UsageError(f"{run_dir} is a folder, but not a run: it has no {RECIPE}.", "Name a recipe, or a run.")
    loaded = load_recipe(run_dir / RECIPE)
    trains = training_of(loaded.recipe) is not None
    recipe = changed_recipe(run_dir, overrides) if trains else load_recipe(run_dir / RECIPE, overrides).recipe
    place = run_dir.absolute()
    return replace(loaded, recipe=recipe.model_copy(update={"output": place.parent, "name": place.name}))


def _same_identity(before: TrainRecipe, after: TrainRecipe) -> TrainRecipe:
    """`after`, known by the paths of `before`: what has moved is the same, as its fingerprint shows."""
    paths = {field: literal_path(path) for field, path in paths_of(before).items()}
    moved = differences(flat_values(before), flat_values(after))
    spelled = {field: paths[field] for field in moved if field in paths} | before.paths_as_written
    return after.model_copy(update={AS_WRITTEN: spelled})


def refuse_other_learning(before: BaseModel, after: BaseModel) -> None:
    """Refuse to continue a run with a recipe that changes what is learnt.

    Raises:
        RecipeError: naming every such field.
    """
    learnt = learnt_differences(before, after)
    if learnt:
        changeable = [name for name in NEUTRAL if name.partition(".")[0] in type(before).model_fields]
        raise RecipeError(
            f"{', '.join(learnt)} cannot be changed in a run that has started, only {', '.join(changeable)} can, and "
            "the length (steps or epochs).",
            "Train under another name: pokevla train RECIPE name=... with the change.",
        )


def changes_of_submission(run_dir: Path, recipe: TrainRecipe) -> dict[str, list[Any]]:
    """What `recipe` changes in a run that has started: field -> [before, now].

    `output` and `name` may differ: a run directory may be moved and renamed.

    Raises:
        RecipeError: as in `changed_recipe`.
        DataError: as in `refuse_changed_data`.
        UsageError: not a run directory of training.
    """
    before = read_run_recipe(run_dir)
    after = with_absolute_paths(recipe).model_copy(update={"output": before.output, "name": before.name})
    refuse_other_learning(before, after)
    refuse_short_length(run_dir, before, after)
    changes = differences(flat_values(before), flat_values(after))
    if any(LOCATIONS.fullmatch(field) for field in changes):
        refuse_changed_data(run_dir, after)
    return changes


def begins_again(run_dir: Path, recipe: TrainRecipe) -> bool:
    """Whether a submitted recipe takes the place of a run: it learns something else, and the run has been tried without
    progress."""
    before = read_run_recipe(run_dir)
    after = with_absolute_paths(recipe).model_copy(update={"output": before.output, "name": before.name})
    tried = any((run_dir / name).exists() for name in (EVENTS, SUBMITTED))
    return tried and not has_progress(run_dir) and bool(learnt_differences(before, after))


def keep_submission(run_dir: Path, recipe: TrainRecipe) -> None:
    """Write what `recipe` changes to the run's `recipe.yaml`. Also raises what `keep_changes` raises.

    Raises:
        UsageError: there are changes, and a process is training the run.
    """
    changes = changes_of_submission(run_dir, recipe)
    if not changes:
        return
    with run_lock(run_dir):
        keep_changes(run_dir, [f"{field}={json.dumps(now)}" for field, (_, now) in changes.items()])


def keep_changes(run_dir: Path, overrides: Sequence[str]) -> None:
    """Write the overrides to the run's `recipe.yaml`, the only file a requeued job reads. Called by one process.

    Raises:
        RecipeError: as in `changed_recipe`.
        DiskFullError: disk full; the old file stays.
    """
    path, before, after = run_dir / RECIPE, read_run_recipe(run_dir), changed_recipe(run_dir, overrides)
    changed = replace(load_recipe(path, with_one_length(before, overrides)), recipe=after)
    if any(getattr(before, name) != getattr(after, name) for name in LENGTH):
        reopen(run_dir)
    write_text(path, dump_changed(path, changed, ORIGIN))


def refuse_changed_data(run_dir: Path, recipe: TrainRecipe) -> None:
    """Refuse to continue if a dataset has changed since the run started. It may have moved. If the manifest cannot be
    read, the fingerprints in the newest checkpoint are compared later.

    Raises:
        DataError: names the dataset that has changed or is missing.
    """
    recorded, names = {}, dataset_names(recipe)
    try:
        recorded = read_manifest(run_dir).get("datasets", {})
    except DataError as error:
        logger.warning("the datasets are not compared with those of the start: %s", error)
    for path in recipe.dataset_paths:
        before, now = recorded.get(names[str(path)]), read_info(path)["fingerprint"]
        if before not in (None, now):
            raise DataError(
                f"The dataset {path} has changed since the run started: fingerprint {now} instead of {before}.",
                "Restore the dataset, or train under another name.",
            )
