"""`pokevla watch RUN`: a live view of a run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pokevla.files.labels import printable

if TYPE_CHECKING:
    from rich.console import Console

    from monitoring.live import LiveRun, Snapshot

Update = Callable[[], "Snapshot"]
OVER = ("finished", "stopped", "failed", "new")


def watch(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    once: Annotated[bool, typer.Option("--once", help="Show the current state and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per update.")] = False,
    interval_s: Annotated[float, typer.Option("--interval-s", min=0.1, help="Seconds between updates.")] = 2.0,
) -> None:
    """Show progress, losses, speed, hosts, checkpoints and events of a run until it ends.

    A dashboard on a terminal, a line for each change elsewhere. It only reads: start and stop it at any time, on any
    machine that sees the directory.
    """
    from monitoring.live import LiveRun
    from pokevla.cli.run_verbs.queue import ask_queue
    from pokevla.cli.terminal import PlainConsole

    live, console = LiveRun(run), PlainConsole()

    def update() -> Snapshot:
        return live.snapshot(ask_queue(run))

    if as_json:
        _print_json(update, once, interval_s)
    elif once:
        from monitoring.dashboard import frame

        console.print(frame(update(), console.width))
    elif console.is_terminal:
        _dashboard(update, console, interval_s)
    else:
        _lines(update, live, interval_s)


def _print_json(update: Update, once: bool, interval_s: float) -> None:
    while True:
        snapshot = update()
        typer.echo(json.dumps(snapshot.to_dict()))
        if once or snapshot.state in OVER:
            return
        time.sleep(interval_s)


def _dashboard(update: Update, console: Console, interval_s: float) -> None:
    from rich.live import Live

    from monitoring.dashboard import frame

    snapshot = update()
    with Live(frame(snapshot, *console.size), console=console, auto_refresh=False) as screen:
        while snapshot.state not in OVER:
            time.sleep(interval_s)
            snapshot = update()
            screen.update(frame(snapshot, *console.size), refresh=True)


def _lines(update: Update, live: LiveRun, interval_s: float) -> None:
    from monitoring.dashboard import line
    from monitoring.events import sentence

    shown = None
    while True:
        snapshot = update()
        # The first update contains all past events; print only the new ones.
        for event in live.new_events if shown is not None else []:
            typer.echo(printable(sentence(event)))
        text = line(snapshot)
        if text != shown:
            typer.echo(printable(text))
            shown = text
        if snapshot.state in OVER:
            return
        time.sleep(interval_s)
