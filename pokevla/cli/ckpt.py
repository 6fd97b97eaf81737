"""`pokevla ckpt inspect RUN` and `pokevla ckpt export RUN OUT`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

app = typer.Typer(no_args_is_help=True, help="Look at checkpoints and export models.", rich_markup_mode=None)


@app.command()
def inspect(
    run: Path = typer.Argument(..., help="A run directory."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """List the complete checkpoints of a run, and whether their files are what they were."""
    from pokevla.checkpoint.catalogue import list_checkpoints, read_info, verify
    from pokevla.checkpoint.run import read_run_recipe
    from pokevla.errors import CheckpointError

    read_run_recipe(run)
    rows = []
    for step, folder in list_checkpoints(run):
        try:
            verify(folder)
            state = "good"
        except CheckpointError as error:
            state = f"damaged: {error.message}"
        try:
            info = read_info(folder)
        except CheckpointError:
            rows.append({"step": step, "folder": str(folder), "state": state})
            continue
        size_mib = sum(file.size for file in info.files) / 2**20
        rows.append(
            {
                "step": step,
                "folder": str(folder),
                "position": info.position,
                "world_size": info.world_size,
                "zero_stage": info.zero_stage,
                "precision": info.precision,
                "files": len(info.files),
                "size_mib": round(size_mib, 1),
                "state": state,
            }
        )
    if as_json:
        typer.echo(json.dumps({"run": str(run), "checkpoints": rows}, indent=2))
    elif not rows:
        typer.echo(f"{run} has no complete checkpoint.")
    else:
        _print_table(rows)


def _print_table(rows: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("step", "position", "world_size", "zero_stage", "precision", "files", "size_mib", "state")
    table = Table(*(column.replace("_", " ") for column in columns))
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    Console().print(table)


@app.command()
def export(
    run: Path = typer.Argument(..., help="A run directory."),
    out: Path = typer.Argument(..., help="Folder to write the model to; it must not exist."),
    step: int = typer.Option(None, "--step", help="Which checkpoint; the newest complete one by default."),
) -> None:
    """Write the model of a checkpoint as a folder that needs nothing else: LoRA merged, fp32."""
    from pokevla.checkpoint.export import export_run
    from pokevla.checkpoint.run import read_run_recipe

    read_run_recipe(run)
    typer.echo(f"exported to {export_run(run, out, step)}")
