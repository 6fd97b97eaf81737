"""`pokevla runs ls|show|stop`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pokevla.cli.tables import print_whole
from pokevla.errors import UsageError, command_line

app = typer.Typer(no_args_is_help=True, help="List, show and stop runs.", rich_markup_mode=None)


@app.command()
def ls(
    folder: Annotated[Path, typer.Argument(help="Directory to search.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the runs and evaluations in a directory, one line each: state, progress, loss or success rates, and why a
    run ended."""
    from monitoring.catalogue import list_runs, runs_table
    from pokevla.cli.run_verbs.queue import ask_queue

    if not folder.is_dir():
        raise UsageError(
            f"{folder} is not a directory.", "Name the directory that runs are written to (`output` of a recipe)."
        )
    snapshots = list_runs(folder, ask_queue)
    if as_json:
        typer.echo(json.dumps([snapshot.to_dict() for snapshot in snapshots], indent=2))
    elif not snapshots:
        typer.echo(f"There is no run and no evaluation in {folder}.")
    else:
        print_whole(runs_table(snapshots))


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show one run: its state as `watch` does, and when, where and how it was started each time."""
    from monitoring.dashboard import frame
    from monitoring.live import LiveRun
    from pokevla.cli.run_verbs.queue import ask_queue
    from pokevla.cli.terminal import PlainConsole
    from pokevla.telemetry.manifest import read_manifest

    snapshot = LiveRun(run).snapshot(ask_queue(run))
    manifest = read_manifest(run)
    if as_json:
        starts = [manifest["start"], *manifest["restarts"]]
        typer.echo(json.dumps({**snapshot.to_dict(), "starts": starts, "commit": manifest["commit"]}, indent=2))
        return
    console = PlainConsole()
    console.print(frame(snapshot, console.width))
    for start in [manifest["start"], *manifest["restarts"]]:
        step = f"from step {start['step']}" if "step" in start else "created"
        job = f", job {start['slurm']['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in start["slurm"] else ""
        console.print(f"{start['time']}  {step} on {start['host']}{job}: {' '.join(start['argv'])}", soft_wrap=True)
    changed = " with uncommitted changes (dirty.patch)" if manifest["dirty"] else ""
    console.print(f"commit {manifest['commit']}{changed}, world size {manifest['world_size']}", soft_wrap=True)


@app.command()
def stop(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    timeout_s: Annotated[float, typer.Option("--timeout-s", help="Seconds to wait for it to end.")] = 300.0,
) -> None:
    """Ask a run to end, and wait until it has."""
    from monitoring.local_stop import stop_local_run
    from pokevla.cli.run_verbs.queue import stop_submitted
    from pokevla.runs.directory import read_run_recipe

    read_run_recipe(run)
    messages = stop_submitted(run)
    if messages is None:
        stop_local_run(run, timeout_s)
        messages = [f"stopped: {run} (continue with: {command_line('resume', run)})"]
    typer.echo("\n".join(messages))
