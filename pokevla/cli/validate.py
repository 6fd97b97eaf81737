"""`pokevla validate`."""

from __future__ import annotations

from pathlib import Path

import typer

from pokevla.errors import PokeVLAError, RecipeError, UsageError
from pokevla.files.labels import printable
from pokevla.files.paths import expanded
from pokevla.packaged_recipes import complete_recipe
from pokevla.recipe.load import LoadedRecipe, load_with_findings
from pokevla.runs.directory import remark_on_existing_run


def validate(
    arguments: list[str] = typer.Argument(
        ...,
        metavar="RECIPE... [OVERRIDES]",
        help="Recipe files or names, and overrides such as optim.lr=3e-4 for all of them.",
        autocompletion=complete_recipe,
    ),
    schema_only: bool = typer.Option(False, "--schema-only", help="Check only the recipe, not the files it names."),
) -> None:
    """Check recipes: fields and values, then datasets, cache, models, batch arithmetic and free disk.

    All problems are listed at once. `train` and `submit` make the same checks.
    """
    overrides = [argument for argument in arguments if "=" in argument and not Path(argument).exists()]
    paths = [expanded(Path(argument)) for argument in arguments if argument not in overrides]
    if not paths:
        raise UsageError("No recipe is named.", "Usage: pokevla validate RECIPE... [OVERRIDES]")
    failed = 0
    for path in paths:
        loaded, problems, remarks = _check(path, overrides, schema_only=schema_only)
        for problem in problems:
            for line in str(problem).splitlines():
                text = line if line.startswith(f"{path}:") else f"{path}: {line}"
                typer.echo(printable(f"error: {text}"), err=True)
        if problems or loaded is None:
            failed = failed or problems[0].exit_code
            continue
        typer.echo(f"{path}: ok ({loaded.recipe.kind} {loaded.recipe.name})")
        for remark in remarks:
            typer.echo(f"  note: {remark}")
    if failed:
        raise typer.Exit(failed)


def _check(
    path: Path, overrides: list[str], *, schema_only: bool
) -> tuple[LoadedRecipe | None, list[PokeVLAError], list[str]]:
    """The recipe (None if its fields are wrong), all problems, and remarks that do not stop a job."""
    from pokevla.jobs.checks.start import check_start

    try:
        loaded, wrong = load_with_findings(path, overrides)
    except PokeVLAError as error:
        return None, [error], []
    problems: list[PokeVLAError] = [RecipeError("\n".join(wrong))] if wrong else []
    if schema_only:
        return loaded, problems, []
    try:
        return loaded, problems, [*check_start(loaded), *remark_on_existing_run(loaded.recipe)]
    except PokeVLAError as error:
        return loaded, [*problems, error], []
