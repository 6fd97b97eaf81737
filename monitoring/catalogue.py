"""The runs below a folder, as a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from monitoring.dashboard import STYLES, duration, number
from monitoring.live import LiveRun, Snapshot
from monitoring.queue import AskQueue
from pokevla.errors import PokeVLAError
from pokevla.telemetry.manifest import MANIFEST

MAX_DEPTH = 4


def find_runs(folder: Path, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """Directories of training runs below `folder` (or itself), by name. Nothing is looked for inside a run."""
    if (folder / "recipe.yaml").is_file() and (folder / MANIFEST).is_file():
        yield folder
    elif depth > 0 and folder.is_dir():
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=True) and not entry.name.startswith("."):
                yield from find_runs(folder / entry.name, depth - 1)


def list_runs(folder: Path, ask_queue: AskQueue) -> list[Snapshot]:
    """A snapshot of every run below `folder`; of one whose recipe cannot be read, with the reason."""
    found = []
    for run_dir in find_runs(folder):
        try:
            found.append(LiveRun(run_dir).snapshot(ask_queue(run_dir)))
        except PokeVLAError as error:
            found.append(unreadable(run_dir, str(error)))
    return found


def unreadable(run_dir: Path, reason: str) -> Snapshot:
    """A run of which nothing is known but why."""
    return Snapshot(
        run=str(run_dir), kind="-", state="unreadable", reason=reason, step=0, steps=None, figures={}, history=[],
        step_s=None, eta_s=None, age_s=None, slowest=None, ranks=0, checkpoints=[], events=[], skipped=0, restarts=0,
        damaged=0, queue=None,
    )  # fmt: skip


def runs_table(snapshots: Sequence[Snapshot]) -> Table:
    """One row a run."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("kind")
    table.add_column("state")
    for title in ("step", "loss", "last sign", "restarts"):
        table.add_column(title, justify="right")
    table.add_column("why")
    for row in snapshots:
        steps = "?" if row.steps is None else str(row.steps)
        loss = number(row.figures["loss"]) if "loss" in row.figures else "-"
        table.add_row(
            row.run, row.kind, Text(row.state, style=STYLES[row.state]), f"{row.step}/{steps}", loss,
            duration(row.age_s), str(row.restarts), Text(row.reason),
        )  # fmt: skip
    return table
