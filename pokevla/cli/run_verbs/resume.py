"""`pokevla resume RUN [overrides]`."""

from __future__ import annotations

from pathlib import Path

import typer

from pokevla.cli.run_verbs.devices import AllowCpu, overrides_for_cpu


def resume(
    run: Path = typer.Argument(..., help="A run directory written by `pokevla train`."),
    overrides: list[str] = typer.Argument(
        None, help="Overrides of resources, batch.micro, log, checkpoint and the length: resources.nodes=2 steps=5000."
    ),
    ranks: int = typer.Option(None, "--ranks", min=1, help="Continue on this number of ranks."),
    allow_cpu: AllowCpu = False,
) -> None:
    """Continue a run from its newest complete checkpoint, or from step 0 if there is none.

    The number of ranks may change; the samples, their order and the global batch do not. `steps=N` trains longer, also
    a finished run.
    """
    from pokevla.jobs.task.job_lock import refuse_second_job
    from pokevla.runs.changes import changed_recipe, ranks_override
    from pokevla.runs.directory import EXPORT
    from pokevla.runs.ending import finished_step
    from pokevla.runs.length import refuse_finished, trains_longer
    from pokevla.training.launch import run_training

    changes = list(overrides or [])
    recipe = changed_recipe(run, changes)
    done = finished_step(run)
    if done is not None and not trains_longer(recipe, done):
        if changes or ranks is not None:
            refuse_finished(run, recipe)
        typer.echo(f"{run} is finished: {done} steps, model in {run / EXPORT}")
        return
    refuse_second_job(run)
    if ranks is not None:
        changes += ranks_override(recipe, ranks)
    changes += overrides_for_cpu(changed_recipe(run, changes), allow_cpu=allow_cpu)
    run_training(run, changes)
    typer.echo(f"finished: {run} (model in {run / EXPORT})")
