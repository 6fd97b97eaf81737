"""Work that is divided into pieces: the shards of a cache, the tasks of an evaluation. What is there is not made again.

RUN/pieces.json    names in each piece, written at submission; a job array has a task for each
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pokevla.errors import DataError
from pokevla.files.texts import write_json
from pokevla.recipe.load import load_recipe
from pokevla.recipe.schema import CacheRecipe, EvalRecipe, GroundingRecipe
from pokevla.runs.directory import RECIPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from pokevla.recipe.load import AnyRecipe

PIECES = "pieces.json"
Pieces = tuple[tuple[str, ...], ...]


def divide(names: list[str], width: int) -> Pieces:
    """Deal names out into at most `width` pieces whose sizes differ by one at most."""
    count = min(width, len(names))
    return tuple(tuple(names[start::count]) for start in range(count))


def plan_pieces(recipe: AnyRecipe, width: int) -> Pieces:
    """The pieces of a cache (shards) or an evaluation (tasks) that are missing now. None for other kinds.

    Raises:
        DataError, CheckpointError: dataset or teacher weights are missing.
        UsageError: a part of the evaluation was done with other settings or weights.
    """
    if isinstance(recipe, EvalRecipe):
        from pokevla.evaluation.parts import missing_tasks

        return divide([str(task) for task in missing_tasks(recipe)], width)
    if not isinstance(recipe, CacheRecipe):
        return ()
    from pokevla.teachers.build import cache_shards

    _, _, missing = cache_shards(recipe.dataset, recipe.cache)
    return divide(missing, width)


def write_pieces(folder: Path, pieces: Pieces) -> None:
    """Keep them with the job."""
    write_json(folder / PIECES, pieces)


def read_piece(folder: Path, number: int) -> list[str]:
    """Names of one piece. DataError when it is not there."""
    path = folder / PIECES
    try:
        return list(json.loads(path.read_text())[number])
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{path} does not tell what piece {number} is ({error}).", "Submit the job again.") from error


def run_piece(folder: Path, number: int | None) -> None:
    """Do one piece of a job that is no training, or (without a number) all of it.

    Raises:
        PokeVLAError: errors of the work itself.
    """
    recipe = load_recipe(folder / RECIPE).recipe
    if isinstance(recipe, CacheRecipe):
        from pokevla.teachers.build import build_cache, build_shards

        if number is None:
            build_cache(recipe.dataset, recipe.cache, recipe.batch, _progress("samples"))
        else:
            names = read_piece(folder, number)
            build_shards(recipe.dataset, recipe.cache, names, recipe.batch, _progress("samples"))
    elif isinstance(recipe, EvalRecipe):
        from pokevla.evaluation.parts import run_tasks

        tasks = recipe.trials.tasks if number is None else [int(name) for name in read_piece(folder, number)]
        run_tasks(
            recipe, tasks, lambda record, done, total: _say(f"task {record.task_index}: {done} of {total} trials")
        )
    elif isinstance(recipe, GroundingRecipe):
        from pokevla.evaluation.vlm.ask import run_grounding

        run_grounding(recipe, overwrite=True, on_progress=lambda name, done, total: _say(f"{name}: {done} of {total}"))
    else:
        raise DataError(f"{folder / 'recipe.yaml'} is of kind {recipe.kind}, which is no job.")


def pieces_done(folder: Path, number: int | None) -> int:
    """How far the work is: finished shards, or trials. Grounding starts over and has nothing to keep."""
    recipe = load_recipe(folder / RECIPE).recipe
    if isinstance(recipe, CacheRecipe):
        from pokevla.teachers.build import cache_shards

        _, names, missing = cache_shards(recipe.dataset, recipe.cache)
        own = names if number is None else read_piece(folder, number)
        return len(set(own) - set(missing))
    if isinstance(recipe, EvalRecipe):
        tasks = recipe.trials.tasks if number is None else [int(name) for name in read_piece(folder, number)]
        records = [folder / "parts" / f"task-{task:02d}" / "episodes.jsonl" for task in tasks]
        return sum(path.read_bytes().count(b"\n") for path in records if path.is_file())
    return 0


def _progress(what: str) -> Callable[[int, int], None]:
    """A line in the log about every ten seconds."""
    last = 0.0

    def listen(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > 10:
            last = time.monotonic()
            _say(f"{done} of {total} {what}")

    return listen


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
