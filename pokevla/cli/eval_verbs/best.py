"""`pokevla eval best RUN RECIPE`: which checkpoint of a run is tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table


def best(
    run: Annotated[Path, typer.Argument(help="Post-training run directory.")],
    recipe: Annotated[Path, typer.Argument(help="Recipe of the test, of kind eval, with one policy of kind model.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as workers=1.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Judge every Nth checkpoint.")] = 1,
    follow: Annotated[
        bool, typer.Option("--follow", help="Also judge the checkpoints that a running training still writes.")
    ] = False,
    patience_s: Annotated[
        float,
        typer.Option("--patience", min=1.0, help="With --follow: give up after SECONDS without a new checkpoint."),
    ] = 6 * 3600.0,
    test: Annotated[
        bool, typer.Option("--test/--no-test", help="Then run the test with the chosen checkpoint.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the choice as JSON.")] = False,
) -> None:
    """Judge the checkpoints of a run on drawn placements, and test only the best of them."""
    from pokevla.cli.run_verbs.eval import console_for, run_trials
    from pokevla.errors import RecipeError
    from pokevla.evaluation.choosing.judging import Listeners, choose_checkpoint, test_recipe
    from pokevla.recipe.load import load_recipe
    from pokevla.recipe.schema import EvalRecipe

    loaded = load_recipe(recipe, [*(overrides or [])]).recipe
    if not isinstance(loaded, EvalRecipe):
        raise RecipeError(f"{recipe}: a recipe of kind {loaded.kind} has no trials.", "Name a recipe of kind eval.")
    console = console_for(stderr=as_json)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    listeners = Listeners(
        on_judged=lambda each: say(
            f"step {each.step}: {each.successes} of {each.trials} validation trials ({each.low:.2f} to {each.high:.2f})"
        ),
        on_note=say,
    )
    choice = choose_checkpoint(loaded, run, every=every, follow_s=patience_s if follow else None, listeners=listeners)
    if as_json:
        typer.echo(json.dumps(choice))
    else:
        console.print(_table(choice, loaded.name))
    if test:
        run_trials(test_recipe(loaded, choice), False, as_json)


def _table(choice: Any, name: str) -> Table:
    from rich.table import Table

    table = Table(title=f"{name}: checkpoints on drawn placements, which the test never uses", title_justify="left")
    for column in ("step", "successes", "rate", "95 % interval", "crashed", ""):
        table.add_column(column, justify="right")
    for row in choice["checkpoints"]:
        table.add_row(
            str(row["step"]), f"{row['successes']}/{row['trials']}", f"{row['rate']:.2f}",
            f"{row['low']:.2f} to {row['high']:.2f}", str(row["crashed"]),
            "chosen" if row["step"] == choice["chosen"] else "",
        )  # fmt: skip
    return table
