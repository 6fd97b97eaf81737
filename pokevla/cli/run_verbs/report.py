"""`pokevla report PATH... -o report.html`: one self-contained HTML page about a pipeline or runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    paths: Annotated[
        list[Path], typer.Argument(help="Pipeline recipe or its output directory; run and evaluation directories.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Write a self-contained HTML report that needs no network and no other file."""
    from monitoring.report.page import write_report
    from pokevla.errors import RecipeError
    from pokevla.recipe.load import load_recipe

    folders = []
    for path in paths:
        if path.suffix in (".yaml", ".yml"):
            recipe = load_recipe(path).recipe
            if recipe.kind != "pipeline":
                raise RecipeError(
                    f"{path}: a report needs a recipe of kind pipeline, not {recipe.kind}.", "Name its run directory."
                )
            folders.append(recipe.output)
        else:
            folders.append(path)
    written = write_report(folders, out)
    typer.echo(f"{written} ({written.stat().st_size / 1e6:.1f} MB)")
