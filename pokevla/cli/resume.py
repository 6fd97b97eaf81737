"""`pokevla resume RUN`."""

from __future__ import annotations

from pathlib import Path

import typer


def resume(run: Path = typer.Argument(..., help="A run directory, as `pokevla train` has made it.")) -> None:
    """Go on with a run from its newest complete checkpoint, or from step 0 if there is none."""
    from pokevla.checkpoint.run import read_run_recipe
    from pokevla.training.launch import finished_step, run_training
    from slurm.lock import refuse_second_job

    read_run_recipe(run)
    done = finished_step(run)
    if done is not None:
        typer.echo(f"{run} is finished: {done} steps, model in {run / 'export'}")
        return
    refuse_second_job(run)
    run_training(run)
    typer.echo(f"finished: {run} (model in {run / 'export'})")
