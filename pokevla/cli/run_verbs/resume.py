"""`pokevla resume RUN [overrides]`."""

from __future__ import annotations

from pathlib import Path

import typer


def resume(
    run: Path = typer.Argument(..., help="A run directory written by `pokevla train`."),
    overrides: list[str] = typer.Argument(
        None, help="Overrides of resources, batch.micro, log and checkpoint, such as resources.nodes=2."
    ),
    ranks: int = typer.Option(None, "--ranks", min=1, help="Continue on this number of ranks."),
) -> None:
    """Continue a run from its newest complete checkpoint, or from step 0 if there is none.

    The number of ranks may change; the samples, their order and the global batch do not.
    """
    from pokevla.jobs.task.job_lock import refuse_second_job
    from pokevla.runs.changes import ranks_override
    from pokevla.runs.directory import EXPORT, read_run_recipe
    from pokevla.runs.ending import finished_step
    from pokevla.training.launch import run_training

    changes = list(overrides or [])
    recipe = read_run_recipe(run, changes)
    done = finished_step(run)
    if done is not None:
        typer.echo(f"{run} is finished: {done} steps, model in {run / EXPORT}")
        return
    refuse_second_job(run)
    if ranks is not None:
        changes += ranks_override(recipe, ranks)
    run_training(run, changes)
    typer.echo(f"finished: {run} (model in {run / EXPORT})")
