"""`pokevla demo [RECIPE]`: run a pipeline from simulator to report, and say whether the policy uses its images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pokevla.errors import RecipeError, command_line
from pokevla.packaged_recipes import complete_recipe
from pokevla.telemetry.writers import METRICS

DEFAULT_RECIPE = Path("demo/demo")


def demo(
    recipe: Annotated[
        Path, typer.Argument(help="Recipe of kind pipeline.", autocompletion=complete_recipe)
    ] = DEFAULT_RECIPE,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the output of an earlier call and start over.")
    ] = False,
) -> None:
    """Run the stages of a pipeline in order; finished ones are skipped."""
    from monitoring.pipeline_summary import summary_tables, verdict, write_summary
    from monitoring.report.page import write_report
    from pokevla.cli.pipelines.pipeline import pipeline_lock, run_pipeline
    from pokevla.cli.terminal import PlainConsole
    from pokevla.recipe.load import load_recipe

    pipeline = load_recipe(recipe).recipe
    if pipeline.kind != "pipeline":
        raise RecipeError(f"{recipe}: a demo needs a recipe of kind pipeline, not {pipeline.kind}.", "Try demo/demo.")
    console = PlainConsole()
    with pipeline_lock(pipeline.output):
        run_pipeline(pipeline, fresh=fresh, announce=lambda line: console.print(line, style="bold", soft_wrap=True))
    summary = write_summary(pipeline.output)
    page = write_report([pipeline.output], pipeline.output / "report.html")
    for table in summary_tables(summary):
        console.print(table)
    console.print(verdict(summary), style="bold", soft_wrap=True)
    for line in closing_lines(pipeline.output, page):
        console.print(line, highlight=False, soft_wrap=True)


def closing_lines(output: Path, page: Path) -> list[str]:
    """What to open and what to do next, after a pipeline in `output` has written its report to `page`."""
    trained = sorted(output.glob(f"*/{METRICS}"), key=lambda path: path.stat().st_mtime)
    commands = {command_line("runs", "ls", output): "all runs and evaluations, with their results"}
    if trained:
        commands |= {
            command_line("watch", trained[-1].parent, "--once"): "how the last training went",
            command_line("ckpt", "inspect", trained[-1].parent): "its checkpoints",
        }
    commands |= {
        shlex.join(["tensorboard", "--logdir", str(output)]): "curves, settings and videos",
        "pokevla recipe ls": "recipes to start from; docs/data.md says how to bring your own data",
    }
    width = max(map(len, commands))
    return [
        "",
        "Open in a browser:",
        f"  {page.resolve().as_uri()}",
        f"Figures: {output / 'summary.json'}",
        "Next:",
        *(f"  {command:<{width}}   {text}" for command, text in commands.items()),
    ]
