"""`pokevla eval openloop RUN DATASET`: predicted against recorded actions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table


def openloop(
    run: Annotated[Path, typer.Argument(help="Post-training run directory, or an exported or imported policy.")],
    dataset: Annotated[Path, typer.Argument(help="Robot dataset with episodes that were not trained on.")],
    split: Annotated[str, typer.Option(help="Split of DATASET that is evaluated, or `all`.")] = "val",
    reference: Annotated[Path | None, typer.Option(help="Dataset that the baselines know. Default: DATASET.")] = None,
    reference_split: Annotated[str, typer.Option(help="Split that the baselines know, or `all`.")] = "train",
    frames: Annotated[int, typer.Option(min=1, help="Evaluate at most N frames, evenly spread.")] = 500,
    reference_frames: Annotated[int, typer.Option(min=1, help="The baselines know at most N frames.")] = 5000,
    horizon: Annotated[
        int | None, typer.Option(min=1, help="Compare the first K actions of a chunk. Default: all.")
    ] = None,
    statistics: Annotated[
        str | None, typer.Option(help="Normalisation statistics of an imported policy, by name of their dataset.")
    ] = None,
    plots: Annotated[int, typer.Option(min=0, help="Plot the chunks of N episodes.")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames per forward pass.")] = 8,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write. Default: RUN-openloop-DATASET beside RUN.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Compare predicted with recorded actions on held-out episodes, where there is no simulator."""
    from pokevla.cli.progress import progress
    from pokevla.cli.run_verbs.eval import console_for
    from pokevla.evaluation.open_loop.evaluate import OpenLoop, evaluate_open_loop
    from pokevla.evaluation.open_loop.results import verdict

    folder = out or run.resolve().with_name(f"{run.resolve().name}-openloop-{dataset.resolve().name}")
    settings = OpenLoop(
        run, dataset, split, reference, reference_split, frames, reference_frames, horizon, statistics, plots,
        batch_size,
    )  # fmt: skip
    with progress("frames read and predicted") as on_progress:
        summary = evaluate_open_loop(settings, folder, overwrite=overwrite, on_progress=on_progress)
    if as_json:
        typer.echo(json.dumps(summary))
        return
    console = console_for(stderr=False)
    console.print(_table(summary))
    console.print(verdict(summary), soft_wrap=True, markup=False)
    for label in summary["labels"]:
        console.print(label, soft_wrap=True, markup=False)
    console.print(f"Written: {folder / 'summary.json'}", soft_wrap=True, markup=False)


def _table(summary: Any) -> Table:
    from rich.table import Table

    seconds = summary["horizon"] / summary["control_rate_hz"]
    table = Table(
        title=f"{summary['frames']} frames of {summary['episodes']} episodes, {summary['horizon']} actions "
        f"({seconds:.2g} s) from each",
        caption="relative error: 1 is the constant action. Others: mean absolute error.",
        title_justify="left",
    )
    predictors = summary["predictors"]
    table.add_column("")
    for name in predictors:
        table.add_column(name, justify="right")
    table.add_row(
        "relative error", *(f"{row['relative_error']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
                            for row in predictors.values())
    )  # fmt: skip
    for column in summary["columns"]:
        unit = "" if column["unit"] == "1" else f" ({column['unit']})"
        errors = [row["by_column"][column["name"]] for row in predictors.values()]
        table.add_row(f"{column['name']}{unit}", *(f"{error:.4g}" for error in errors))
    if next(iter(predictors.values()))["gripper_agreement"] is not None:
        table.add_row("gripper agrees", *(f"{100 * row['gripper_agreement']:.1f} %" for row in predictors.values()))
    return table
