"""An evaluation divided into its tasks, so that several machines can share it; put together when all are done.

output/name/parts/task-03/    an evaluation of its own, of one task
output/name/                  episodes, videos' places and summary of all of them
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pokevla.errors import UsageError
from pokevla.evaluation.closed_loop import ProgressCallback, check_trials, identity_of, run_closed_loop, write_summary
from pokevla.evaluation.records import EpisodeRecord, append_record, read_records
from pokevla.evaluation.trials import plan_trials
from pokevla.files.texts import write_json
from pokevla.recipe.schema import EvalRecipe


def part_of(recipe: EvalRecipe, task: int) -> EvalRecipe:
    """The trials of one task as an evaluation of its own."""
    trials = recipe.trials.model_copy(update={"tasks": [task]})
    return recipe.model_copy(update={"name": f"{recipe.name}/parts/task-{task:02d}", "trials": trials})


def missing_tasks(recipe: EvalRecipe) -> list[int]:
    """Tasks whose part is not complete.

    Raises:
        UsageError: a part was done with other settings or weights.
    """
    return [task for task in recipe.trials.tasks if not _is_done(part_of(recipe, task))]


def run_tasks(recipe: EvalRecipe, tasks: Sequence[int], on_progress: ProgressCallback | None = None) -> None:
    """Run or continue some tasks, beside others that run the rest; whoever ends the last one puts all together.

    Errors of `run_closed_loop`.
    """
    for task in tasks:
        part = part_of(recipe, task)
        if not _is_done(part):
            run_closed_loop(part, on_progress=on_progress)
    with (_folder(recipe) / ".parts.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not missing_tasks(recipe) and not (_folder(recipe) / "summary.json").is_file():
            _put_together(recipe)


def _put_together(recipe: EvalRecipe) -> dict[str, Any]:
    folder = _folder(recipe)
    max_steps = check_trials(recipe)
    records: list[EpisodeRecord] = []
    for task in recipe.trials.tasks:
        part = _folder(part_of(recipe, task))
        place = part.relative_to(folder)
        records += [
            dataclasses.replace(record, video=None if record.video is None else str(place / record.video))
            for record in read_records(part / "episodes.jsonl")
        ]
    write_json(folder / "identity.json", identity_of(recipe))
    episodes = folder / "episodes.jsonl"
    episodes.unlink(missing_ok=True)  # of an attempt that was killed here
    for record in records:
        append_record(episodes, record)
    trials = plan_trials(recipe.trials, [spec.name for spec in recipe.policies], max_steps)
    return write_summary(recipe, records, trials, max_steps)


def _is_done(part: EvalRecipe) -> bool:
    folder = _folder(part)
    if not (folder / "summary.json").is_file():
        return False
    if json.loads((folder / "identity.json").read_text(encoding="utf-8")) != identity_of(part):
        raise UsageError(
            f"{folder} was evaluated with other settings or other weights.",
            "Give the evaluation another name: name=...",
        )
    return True


def _folder(recipe: EvalRecipe) -> Path:
    folder = recipe.output / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
