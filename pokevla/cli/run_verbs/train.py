"""`pokevla train RECIPE [overrides]`."""

from __future__ import annotations

from pathlib import Path

import typer

from pokevla.cli.run_verbs.devices import AllowCpu, overrides_for_cpu
from pokevla.packaged_recipes import complete_recipe


def train(
    recipe: Path = typer.Argument(
        ...,
        help="A recipe of kind pretrain or posttrain: a file, or a name of `recipe ls`.",
        autocompletion=complete_recipe,
    ),
    overrides: list[str] = typer.Argument(None, help="Overrides such as optim.lr=3e-4 name=second."),
    allow_cpu: AllowCpu = False,
) -> None:
    """Run a training recipe; starts the ranks itself. Writes everything to OUTPUT/NAME of the recipe."""
    from pokevla.distributed.environment import inside_a_rank, read_rank
    from pokevla.errors import RecipeError
    from pokevla.jobs.checks.start import check_start
    from pokevla.recipe.kinds import training_of
    from pokevla.recipe.load import load_recipe
    from pokevla.runs.creation import create_run, set_failed_run_aside
    from pokevla.runs.directory import EXPORT, run_directory
    from pokevla.training.launch import run_training

    loaded = load_recipe(recipe, overrides or [])
    job = training_of(loaded.recipe)
    if job is None:
        raise RecipeError(
            f"{recipe} is of kind {loaded.recipe.kind}.", "`pokevla train` takes kind pretrain or posttrain."
        )
    if inside_a_rank() and not read_rank().is_main:  # rank 0 makes the directory
        run_dir = run_directory(job)
    else:
        on_cpu = overrides_for_cpu(job, allow_cpu=True) if allow_cpu else []
        loaded = load_recipe(recipe, [*(overrides or []), *on_cpu]) if on_cpu else loaded
        for warning in check_start(loaded, also=[lambda: [] if on_cpu else overrides_for_cpu(job, allow_cpu=False)]):
            typer.echo(f"warning: {warning}", err=True)
        aside = set_failed_run_aside(run_directory(job), jobs_are_over=_jobs_are_over(run_directory(job)))
        if aside is not None:
            typer.echo(
                f"{run_directory(job)} had failed before its first checkpoint; its files are now in {aside}", err=True
            )
        run_dir = create_run(loaded, training_of(loaded.recipe) or job)
    run_training(run_dir)
    if not inside_a_rank() or read_rank().is_main:
        typer.echo(f"finished: {run_dir} (model in {run_dir / EXPORT})")


def _jobs_are_over(run_dir: Path) -> bool:
    """Whether no job of the run runs or waits; False if the cluster does not say."""
    from pokevla.errors import ClusterError, DataError
    from pokevla.jobs.tracking import active_job

    try:
        return active_job(run_dir) is None
    except (ClusterError, DataError):
        return False
