"""`pokevla validate`."""

from __future__ import annotations

from pathlib import Path

import typer

from pokevla.errors import PokeVLAError
from pokevla.recipe.load import load_recipe
from pokevla.runs.checks import check_recipe
from pokevla.runs.directory import remark_on_existing_run


def validate(
    recipes: list[Path] = typer.Argument(..., metavar="RECIPE...", help="Recipe files."),
    schema_only: bool = typer.Option(False, "--schema-only", help="Check only the recipe, not the files it names."),
) -> None:
    """Check recipes: fields and values, then datasets, cache, models, batch arithmetic and free disk."""
    failed = 0
    for path in recipes:
        try:
            loaded = load_recipe(path)
            remarks = [] if schema_only else [*check_recipe(loaded), *remark_on_existing_run(loaded.recipe)]
        except PokeVLAError as error:
            for line in str(error).splitlines():
                typer.echo(f"error: {line}", err=True)
            failed = failed or error.exit_code
            continue
        typer.echo(f"{path}: ok ({loaded.recipe.kind} {loaded.recipe.name})")
        for remark in remarks:
            typer.echo(f"  note: {remark}")
    if failed:
        raise typer.Exit(failed)
