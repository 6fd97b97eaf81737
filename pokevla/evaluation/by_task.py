"""Divides an evaluation by task, so that several machines can share it, and combines the results.

output/name/parts/task-03/    a separate evaluation of one task
output/name/                  records and summary of all tasks; videos stay in parts/
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pokevla.errors import UsageError
from pokevla.evaluation.closed_loop import (
    ProgressCallback,
    check_trials,
    identity_of,
    run_closed_loop,
    task_indices,
    write_summary,
)
from pokevla.evaluation.folder import EPISODES, IDENTITY, SUMMARY, refuse_other_folder
from pokevla.evaluation.locking import combine_lock, evaluation_lock
from pokevla.evaluation.trial_records import TrialRecord, append_record, read_records
from pokevla.evaluation.trials import plan_trials
from pokevla.files.texts import read_json, write_json
from pokevla.recipe.schema import EvalRecipe


def recipe_of_task(recipe: EvalRecipe, task: int) -> EvalRecipe:
    """Recipe of a separate evaluation that has the trials of one task."""
    trials = recipe.trials.model_copy(update={"tasks": [task]})
    return recipe.model_copy(update={"name": f"{recipe.name}/parts/task-{task:02d}", "trials": trials})


def missing_tasks(recipe: EvalRecipe) -> list[int]:
    """Tasks whose evaluation is not complete.

    Raises:
        UsageError: a task was evaluated with other settings or weights.
    """
    return [task for task in task_indices(recipe) if not _is_done(recipe_of_task(recipe, task))]


def run_tasks(recipe: EvalRecipe, tasks: Sequence[int], on_progress: ProgressCallback | None = None) -> None:
    """Run or continue some of the tasks, while other processes run the rest. The last to finish combines the results.

    Raises what `run_closed_loop` raises.
    """
    refuse_other_folder(recipe)
    with evaluation_lock(_folder(recipe), shared=True):
        for task in tasks:
            task_recipe = recipe_of_task(recipe, task)
            if not _is_done(task_recipe):
                run_closed_loop(task_recipe, on_progress=on_progress)
    with combine_lock(_folder(recipe)):
        if not missing_tasks(recipe) and not (_folder(recipe) / SUMMARY).is_file():
            _combine(recipe)


def _combine(recipe: EvalRecipe) -> dict[str, Any]:
    folder = _folder(recipe)
    max_steps = check_trials(recipe)
    records: list[TrialRecord] = []
    for task in task_indices(recipe):
        task_folder = _folder(recipe_of_task(recipe, task))
        prefix = task_folder.relative_to(folder)
        records += [
            dataclasses.replace(record, video=None if record.video is None else str(prefix / record.video))
            for record in read_records(task_folder / EPISODES)
        ]
    write_json(folder / IDENTITY, identity_of(recipe))
    episodes = folder / EPISODES
    episodes.unlink(missing_ok=True)  # left by an attempt that was killed here
    for record in records:
        append_record(episodes, record)
    trials = plan_trials(recipe.trials, [spec.name for spec in recipe.policies], max_steps, task_indices(recipe))
    return write_summary(recipe, records, trials, max_steps)


def _is_done(recipe: EvalRecipe) -> bool:
    folder = _folder(recipe)
    if not (folder / SUMMARY).is_file():
        return False
    if read_json(folder / IDENTITY) != identity_of(recipe):
        raise UsageError(
            f"{folder} was evaluated with other settings or other weights.",
            "Give the evaluation another name: name=...",
        )
    return True


def _folder(recipe: EvalRecipe) -> Path:
    folder = recipe.output / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
