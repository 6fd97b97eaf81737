"""`pokevla eval RECIPE`: closed-loop trials (kind eval) or grounding accuracy (kind grounding)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pokevla.packaged_recipes import complete_recipe

if TYPE_CHECKING:
    from rich.console import Console

    from pokevla.recipe.schema import EvalRecipe, GroundingRecipe


LOG_WIDTH = 110
"""Width in characters of a table that is not printed on a terminal."""


def evaluate(
    recipe: Annotated[Path, typer.Argument(help="Recipe of kind eval or grounding.", autocompletion=complete_recipe)],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as workers=1.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over even if it is complete.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Evaluate policies in closed-loop trials, or the points that a PokeVLM predicts."""
    from pokevla.errors import RecipeError
    from pokevla.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or []).recipe
    if loaded.kind not in _BY_KIND:
        raise RecipeError(f"{recipe}: a recipe of kind {loaded.kind} cannot be evaluated.", "Kinds: eval, grounding.")
    _BY_KIND[loaded.kind](loaded, overwrite, as_json)


def console_for(*, stderr: bool) -> Console:
    """Where an evaluation reports: standard error if the standard output is for JSON."""
    from pokevla.cli.terminal import PlainConsole

    return PlainConsole(stderr=stderr, log_width=LOG_WIDTH)


def run_trials(recipe: EvalRecipe, overwrite: bool, as_json: bool) -> None:
    """Run closed-loop trials and print their table."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from pokevla.cli.progress import TimeLeft
    from pokevla.evaluation.closed_loop import run_closed_loop
    from pokevla.evaluation.crashes import refuse_crashes
    from pokevla.evaluation.table import trials_table
    from pokevla.evaluation.trial_records import TrialRecord

    console, left = console_for(stderr=as_json), TimeLeft()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("trials", total=None)

        ended = 0

        def on_progress(record: TrialRecord, finished: int, total: int) -> None:
            nonlocal ended
            ended += 1
            bar.update(task, completed=finished, total=total, description=record.policy)
            iou = "" if record.mask_iou is None else f", mask IoU {record.mask_iou:.2f}"
            eta = left.after(finished, total)
            text = (
                f"{finished}/{total} {record.policy} {record.suite} task {record.task_index} state "
                f"{record.init_state_index}: {record.outcome}, {record.steps} steps, {record.seconds:.1f} s{iou}"
                f"{f', {eta}' if eta else ''}"
            )
            console.print(text, soft_wrap=True)

        def on_start(line: str) -> None:
            console.print(line, soft_wrap=True)

        started = time.monotonic()
        summary = run_closed_loop(recipe, overwrite=overwrite, on_progress=on_progress, on_start=on_start)
        minutes = (time.monotonic() - started) / 60
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        console.print(trials_table(summary, recipe.name))
        for judged in summary.get("sequential", ()):
            console.print(judged["sentence"], soft_wrap=True)
        if ended:
            console.print(f"{ended} trials in {minutes:.1f} min, {ended / minutes:.1f} per minute")
        console.print(f"Written: {recipe.output / recipe.name / 'summary.json'}", soft_wrap=True)
    refuse_crashes(recipe.output / recipe.name)


def _grounding(recipe: GroundingRecipe, overwrite: bool, as_json: bool) -> None:
    from pokevla.cli.progress import TimeLeft
    from pokevla.evaluation.table import grounding_table
    from pokevla.evaluation.vlm.ask import run_grounding

    console, left = console_for(stderr=as_json), TimeLeft()

    def on_progress(model: str, answered: int, total: int) -> None:
        eta = left.after(answered, total)
        console.print(f"{model}: {answered}/{total} questions{f', {eta}' if eta else ''}", soft_wrap=True)

    summary = run_grounding(recipe, overwrite=overwrite, on_progress=on_progress)
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        console.print(grounding_table(summary, recipe.name))
        console.print(f"Written: {recipe.output / recipe.name / 'summary.json'}", soft_wrap=True)


_BY_KIND: dict[str, Callable[[Any, bool, bool], None]] = {"eval": run_trials, "grounding": _grounding}
