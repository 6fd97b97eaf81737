"""`pokevla train RECIPE [overrides]`."""

from __future__ import annotations

from pathlib import Path

import typer


def train(
    recipe: Path = typer.Argument(..., help="A recipe of kind pretrain or posttrain."),
    overrides: list[str] = typer.Argument(None, help="Overrides such as optim.lr=3e-4 name=second."),
) -> None:
    """Run a training recipe; starts the ranks itself. Writes everything to OUTPUT/NAME of the recipe."""
    from pokevla.distributed.environment import inside_a_rank, read_rank
    from pokevla.errors import RecipeError
    from pokevla.recipe.kinds import training_of
    from pokevla.recipe.load import load_recipe
    from pokevla.runs.checks import check_recipe
    from pokevla.runs.creation import create_run
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
        for warning in check_recipe(loaded):
            typer.echo(f"warning: {warning}", err=True)
        run_dir = create_run(loaded, job)
    run_training(run_dir)
    if not inside_a_rank() or read_rank().is_main:
        typer.echo(f"finished: {run_dir} (model in {run_dir / EXPORT})")
