"""Dividing a job into pieces: the shards of a cache, the tasks of an evaluation. Finished ones are not repeated.

RUN/pieces.json    names in each piece, written at submission; a job array has one Slurm task per piece
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokevla.errors import DataError
from pokevla.files.records import as_type
from pokevla.files.texts import read_json, write_json
from pokevla.recipe.kinds import AnyRecipe
from pokevla.recipe.load import load_recipe
from pokevla.runs.directory import RECIPE
from pokevla.telemetry.time_left import TimeLeft

PIECES = "pieces.json"
Pieces = tuple[tuple[str, ...], ...]
Names = Sequence[str] | None
"""Names in one piece; None for all work."""


@dataclass(frozen=True)
class Division:
    """How the work of one kind of recipe is divided and done."""

    run: Callable[[Any, Names], None]  # recipe, names
    done: Callable[[Any, Path, Names], int]  # recipe, job folder, names -> progress
    missing: Callable[[Any], list[str]]  # recipe -> names that are not done yet
    piece: str = ""  # what a name stands for, for a person; "" if the work is not divided
    plural: str = ""


def divide(names: list[str], width: int) -> Pieces:
    """Divide names into at most `width` pieces whose sizes differ by at most one."""
    count = min(width, len(names))
    return tuple(tuple(names[start::count]) for start in range(count))


def plan_pieces(recipe: AnyRecipe, width: int) -> Pieces:
    """Missing pieces of a cache (shards) or an evaluation (tasks); no pieces for other kinds.

    Raises:
        DataError, CheckpointError: dataset or teacher weights are missing.
        UsageError: the evaluation was started with other settings or weights.
    """
    division = DIVISIONS.get(recipe.kind)
    return divide(division.missing(recipe), width) if division is not None else ()


def write_pieces(folder: Path, pieces: Pieces) -> None:
    """Write RUN/pieces.json."""
    write_json(folder / PIECES, pieces)


def read_piece(folder: Path, number: int) -> list[str]:
    """Names of one piece. DataError if it is missing."""
    path = folder / PIECES
    remedy = "Submit the job again."
    pieces = as_type(read_json(path, remedy=remedy), list[list[str]], path, remedy=remedy)
    if not 0 <= number < len(pieces):
        raise DataError(f"{path} does not define piece {number}: it has {len(pieces)}.", remedy)
    return pieces[number]


def run_piece(folder: Path, number: int | None) -> None:
    """Do one piece of a job other than training, or without a number all of it.

    Raises:
        PokeVLAError: errors of the work itself.
    """
    recipe = load_recipe(folder / RECIPE).recipe
    if recipe.kind not in DIVISIONS:
        raise DataError(f"{folder / RECIPE} is of kind {recipe.kind}, which cannot run as a job.")
    DIVISIONS[recipe.kind].run(recipe, None if number is None else read_piece(folder, number))


def pieces_done(folder: Path, number: int | None) -> int:
    """Number of finished shards or trials; 0 for grounding, which always starts over."""
    recipe = load_recipe(folder / RECIPE).recipe
    names = None if number is None else read_piece(folder, number)
    return DIVISIONS[recipe.kind].done(recipe, folder, names)


# ------------------------------------------------------------------------------------------------ by kind


def _build_cache(recipe: Any, names: Names) -> None:
    from pokevla.features.cache_build import STALL_S, build_cache

    # A task of an array does not keep its node waiting for the others.
    stall_s = STALL_S if names is None else None
    build_cache(recipe.dataset, recipe.cache, recipe.batch, _progress("samples"), names=names or (), stall_s=stall_s)


def _missing_shards(recipe: Any) -> list[str]:
    from pokevla.features.cache_build import cache_shards

    return cache_shards(recipe.dataset, recipe.cache)[2]


def _shards_done(recipe: Any, _folder: Path, names: Names) -> int:
    from pokevla.features.cache_build import cache_shards

    _, all_names, missing = cache_shards(recipe.dataset, recipe.cache)
    return len(set(all_names if names is None else names) - set(missing))


def _run_trials(recipe: Any, names: Names) -> None:
    from pokevla.evaluation.crashes import refuse_crashes
    from pokevla.evaluation.parts import run_parts

    run_parts(
        recipe,
        names,
        lambda record, done, total: _print(f"{record.suite} task {record.task_index}: {done} of {total} trials"),
    )
    refuse_crashes(recipe.output / recipe.name)  # only the task that has combined the results finds any


def _missing_parts(recipe: Any) -> list[str]:
    from pokevla.evaluation.parts import missing_parts

    return missing_parts(recipe)


def _trials_done(recipe: Any, _folder: Path, names: Names) -> int:
    from pokevla.evaluation.parts import count_trials

    return count_trials(recipe, names)


def _ask(recipe: Any, _names: Names) -> None:
    from pokevla.evaluation.vlm.ask import run_grounding

    run_grounding(recipe, overwrite=True, on_progress=lambda name, done, total: _print(f"{name}: {done} of {total}"))


DIVISIONS: dict[str, Division] = {
    "cache": Division(_build_cache, _shards_done, _missing_shards, "shard", "shards"),
    "eval": Division(_run_trials, _trials_done, _missing_parts, "part of the evaluation", "parts of the evaluation"),
    "grounding": Division(_ask, lambda _recipe, _folder, _names: 0, lambda _recipe: []),
}
"""Kind of recipe -> how to divide and do its work."""


def _progress(what: str) -> Callable[[int, int], None]:
    """Progress callback that prints a line about every ten seconds, with the recent speed and the time left."""
    last, left = 0.0, TimeLeft()

    def listen(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > 10:
            last = time.monotonic()
            eta = left.after(done, total)
            _print(", ".join(part for part in (f"{done} of {total} {what}", left.speed(what), eta) if part))

    return listen


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
