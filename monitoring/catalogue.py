"""The runs below a folder, as a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from monitoring.dashboard import STYLES
from monitoring.live import LiveRun, Snapshot, State, state_of_job
from monitoring.queue_state import AskQueue, QueueState
from pokevla.errors import PokeVLAError
from pokevla.recipe.kinds import KINDS, kind_of
from pokevla.recipe.load import load_recipe
from pokevla.runs.directory import RECIPE, SUBMITTED, holds_recipe
from pokevla.telemetry.figures import duration, number
from pokevla.telemetry.manifest import MANIFEST

MAX_DEPTH = 4
TRAINED = tuple(name for name, kind in KINDS.items() if kind.trains)


def find_runs(folder: Path, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """Directories of runs and submitted jobs below `folder` (or itself), by name. Does not search inside them."""
    if holds_recipe(folder) and any((folder / name).is_file() for name in (MANIFEST, SUBMITTED)):
        yield folder
    elif depth > 0 and folder.is_dir():
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if not entry.name.startswith(".") and _leads_to_folder(entry):
                yield from _find_readable(folder / entry.name, depth - 1)


def list_runs(folder: Path, ask_queue: AskQueue) -> list[Snapshot]:
    """A snapshot of every run below `folder`. If a recipe cannot be read, the snapshot says why."""
    snapshots = []
    for run_dir in _find_readable(folder, MAX_DEPTH):
        try:
            snapshots.append(_snapshot(run_dir, ask_queue(run_dir)))
        except PokeVLAError as error:
            snapshots.append(_bare(run_dir, "-", "unreadable", str(error)))
        except OSError as error:
            reason = f"{error.filename or run_dir} cannot be read ({error.strerror})"
            snapshots.append(_bare(run_dir, "-", "unreadable", reason))
    return snapshots


def _find_readable(folder: Path, depth: int) -> Iterator[Path]:
    """`find_runs`, and `folder` itself if it cannot be read: its row says why, and hides no other."""
    try:
        yield from find_runs(folder, depth)
    except OSError:
        yield folder


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=True)
    except OSError:  # a link to itself
        return False


def _snapshot(run_dir: Path, queue: QueueState | None) -> Snapshot:
    os.listdir(run_dir)  # OSError if it cannot be read
    recipe = load_recipe(run_dir / RECIPE).recipe
    if kind_of(recipe).trains:
        return LiveRun(run_dir).snapshot(queue)
    # A submitted cache or evaluation: only the queue knows its state.
    state, reason = ("new", "") if queue is None else state_of_job(queue)
    return _bare(run_dir, recipe.kind, state, reason, queue)


def _bare(run_dir: Path, kind: str, state: State, reason: str, queue: QueueState | None = None) -> Snapshot:
    return Snapshot(
        run=str(run_dir), kind=kind, state=state, reason=reason, step=0, steps=None, figures={}, history=[],
        step_s=None, eta_s=None, age_s=None, slowest=None, ranks=0, checkpoints=[], events=[], skipped=0, restarts=0,
        damaged=0, queue=queue,
    )  # fmt: skip


def runs_table(snapshots: Sequence[Snapshot]) -> Table:
    """Table with one row per run."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("kind")
    table.add_column("state")
    for title in ("step", "loss", "last sign", "restarts"):
        table.add_column(title, justify="right")
    table.add_column("why")
    for row in snapshots:
        step = f"{row.step}/{'?' if row.steps is None else row.steps}" if row.kind in TRAINED else "-"
        loss = number(row.figures["loss"]) if "loss" in row.figures else "-"
        table.add_row(
            row.run, row.kind, Text(row.state, style=STYLES[row.state]), step, loss,
            duration(row.age_s), str(row.restarts), Text(row.reason),
        )  # fmt: skip
    return table
