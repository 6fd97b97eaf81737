"""`pokevla watch RUN`: how a run goes, live."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from monitoring.live import LiveRun, Snapshot

Look = Callable[[], "Snapshot"]
OVER = ("finished", "stopped", "failed", "new")


def watch(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    once: Annotated[bool, typer.Option("--once", help="Show the present state and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a look.")] = False,
    interval_s: Annotated[float, typer.Option("--interval-s", min=0.1, help="Seconds between looks.")] = 2.0,
) -> None:
    """Show progress, losses, speed, hosts, checkpoints and events of a run until it ends.

    A dashboard on a terminal, a line for each change elsewhere. Only looks: it may be started and left at any time, on
    any machine that sees the directory.
    """
    from rich.console import Console

    from monitoring.live import LiveRun
    from pokevla.cli.run_verbs.queue import ask_queue

    live, console = LiveRun(run), Console()

    def look() -> Snapshot:
        return live.snapshot(ask_queue(run))

    if as_json:
        _print_json(look, once, interval_s)
    elif once:
        from monitoring.dashboard import frame

        console.print(frame(look()))
    elif console.is_terminal:
        _dashboard(look, console, interval_s)
    else:
        _lines(look, live, interval_s)


def _print_json(look: Look, once: bool, interval_s: float) -> None:
    while True:
        snapshot = look()
        typer.echo(json.dumps(snapshot.to_dict()))
        if once or snapshot.state in OVER:
            return
        time.sleep(interval_s)


def _dashboard(look: Look, console: Console, interval_s: float) -> None:
    from rich.live import Live

    from monitoring.dashboard import frame

    snapshot = look()
    with Live(frame(snapshot), console=console, auto_refresh=False) as screen:
        while snapshot.state not in OVER:
            time.sleep(interval_s)
            snapshot = look()
            screen.update(frame(snapshot), refresh=True)


def _lines(look: Look, live: LiveRun, interval_s: float) -> None:
    from monitoring.dashboard import line
    from monitoring.events import sentence

    shown = None
    while True:
        snapshot = look()
        # The first look finds all events there ever were; only what happens from now on is news.
        for event in live.new_events if shown is not None else []:
            typer.echo(sentence(event))
        text = line(snapshot)
        if text != shown:
            typer.echo(text)
            shown = text
        if snapshot.state in OVER:
            return
        time.sleep(interval_s)
