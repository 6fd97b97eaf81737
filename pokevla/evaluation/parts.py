"""Divides an evaluation into parts, so that several machines can share it, and combines the results.

output/name/parts/libero_object-03/          a separate evaluation of one task
output/name/parts/libero_object-0050-0074/   of 25 tasks, where a suite has hundreds
output/name/                                 records and summary of all parts; videos stay in parts/
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokevla.errors import UsageError
from pokevla.evaluation.closed_loop import ProgressCallback, identity_of, run_closed_loop, write_summary
from pokevla.evaluation.conditions.agreement import check_agreement
from pokevla.evaluation.conditions.settling import settle
from pokevla.evaluation.folder import EPISODES, IDENTITY, SUMMARY, refuse_other_folder
from pokevla.evaluation.locking import combine_lock, evaluation_lock, is_run_elsewhere
from pokevla.evaluation.selection import check_trials, tasks_of
from pokevla.evaluation.trial_records import TrialRecord, read_records, rewrite_records
from pokevla.evaluation.trials import plan_trials
from pokevla.files.texts import read_json, write_json
from pokevla.recipe.schema import EvalRecipe

MANY_TASKS = 50
"""A suite with more tasks is divided into parts of several."""
TASKS_PER_PART = 25
WHOLE = "all"
"""The only part of an evaluation that may end early."""


@dataclass(frozen=True)
class Part:
    """Some tasks of one suite."""

    suite: str
    tasks: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of its folder, and of the part in a job."""
        first, last = self.tasks[0], self.tasks[-1]
        return f"{self.suite}-{first:02d}" if first == last else f"{self.suite}-{first:04d}-{last:04d}"


def parts_of(recipe: EvalRecipe) -> list[Part]:
    """All parts of an evaluation, in order: single tasks, or blocks of tasks where there are many."""
    parts = []
    for suite, tasks in tasks_of(recipe).items():
        size = 1 if len(tasks) <= MANY_TASKS else TASKS_PER_PART
        parts += [Part(suite, tuple(tasks[start : start + size])) for start in range(0, len(tasks), size)]
    return parts


def recipe_of_part(recipe: EvalRecipe, part: Part) -> EvalRecipe:
    """Recipe of a separate evaluation that has the trials of one part."""
    chosen = {"suite": part.suite, "tasks": list(part.tasks), "perturbations": None, "subset": None}
    trials = recipe.trials.model_copy(update=chosen)
    return recipe.model_copy(update={"name": f"{recipe.name}/parts/{part.name}", "trials": trials})


def missing_parts(recipe: EvalRecipe) -> list[str]:
    """Names of the parts whose evaluation is not complete.

    Raises:
        UsageError: a part was evaluated with other settings or weights.
    """
    if recipe.trials.until is not None:
        return [] if _is_done(recipe) else [WHOLE]
    return [part.name for part in parts_of(recipe) if not _is_done(recipe_of_part(recipe, part))]


def count_trials(recipe: EvalRecipe, names: Sequence[str] | None = None) -> int:
    """Trials recorded so far in some parts, or in all."""
    if recipe.trials.until is not None:
        return count_lines([_folder(recipe) / EPISODES])
    paths = [
        _folder(recipe_of_part(recipe, part)) / EPISODES
        for part in parts_of(recipe)
        if names is None or part.name in names
    ]
    return count_lines(paths)


def count_lines(paths: Sequence[Path]) -> int:
    """Complete lines of files, those that do not exist left out."""
    return sum(path.read_bytes().count(b"\n") for path in paths if path.is_file())


def run_parts(recipe: EvalRecipe, names: Sequence[str] | None, on_progress: ProgressCallback | None = None) -> None:
    """Run or continue some of the parts (None: all), while other processes run the rest; then help with those.

    A part that another process runs is passed over. The last to finish combines the results.

    Raises what `run_closed_loop` raises.
    """
    refuse_other_folder(recipe)
    if recipe.trials.until is not None:  # what to run next depends on all trials so far
        run_closed_loop(recipe, on_progress=on_progress)
        return
    own = [part for part in parts_of(recipe) if names is None or part.name in names]
    others = [part for part in parts_of(recipe) if part not in own]
    with evaluation_lock(_folder(recipe), shared=True):
        # Others from the end: the processes that own these parts work from the front. And again, until a round finds
        # nothing to do: a process that had taken a part may have been killed.
        ordered = [recipe_of_part(recipe, part) for part in [*own, *reversed(others)]]
        while sum(_run_if_free(part, on_progress) for part in ordered):
            pass
    with combine_lock(_folder(recipe)):
        if not missing_parts(recipe) and not (_folder(recipe) / SUMMARY).is_file():
            _combine(recipe)


def _run_if_free(part: EvalRecipe, on_progress: ProgressCallback | None) -> bool:
    """Run a part that is neither done nor run by another process; whether there was something to do."""
    if _is_done(part) or is_run_elsewhere(_folder(part)):
        return False
    try:
        run_closed_loop(part, on_progress=on_progress)
    except UsageError:  # another process has begun it in this very moment, or has finished it
        if not (is_run_elsewhere(_folder(part)) or _is_done(part)):
            raise
    return True


def _combine(recipe: EvalRecipe) -> dict[str, Any]:
    settled = settle(recipe)
    recipe, folder = settled.recipe, _folder(recipe)
    max_steps = check_trials(recipe)
    records: list[TrialRecord] = []
    for part in parts_of(recipe):
        part_folder = _folder(recipe_of_part(recipe, part))
        prefix = part_folder.relative_to(folder)
        records += [_moved(record, prefix) for record in read_records(part_folder / EPISODES)]
    write_json(folder / IDENTITY, identity_of(recipe))
    rewrite_records(folder / EPISODES, records)
    trials = plan_trials(recipe.trials, [spec.name for spec in recipe.policies], max_steps, tasks_of(recipe))
    return write_summary(settled, records, trials, max_steps, check_agreement(recipe))


def _moved(record: TrialRecord, prefix: Path) -> TrialRecord:
    """The record with the paths of its files from the folder of the whole evaluation."""
    paths = {name: value for name in ("video", "picture") if (value := getattr(record, name)) is not None}
    return dataclasses.replace(record, **{name: str(prefix / value) for name, value in paths.items()})


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
