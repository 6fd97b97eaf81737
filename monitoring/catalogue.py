"""The runs and evaluations below a folder, as a table."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from monitoring.dashboard import STYLES
from monitoring.evaluations import count_records, kind_of_evaluation, read_results, results_text
from monitoring.live import LiveRun, Snapshot, State, state_of_job
from monitoring.queue_state import AskQueue, QueueState
from pokevla.errors import PokeVLAError
from pokevla.recipe.kinds import KINDS, kind_of
from pokevla.recipe.load import load_recipe
from pokevla.runs.directory import RECIPE, SUBMITTED, holds_recipe
from pokevla.telemetry.figures import duration, number
from pokevla.telemetry.manifest import MANIFEST

MAX_DEPTH = 4
EVALUATED = {"eval": "trials", "grounding": "answers"}
TRAINED = tuple(name for name, kind in KINDS.items() if kind.trains)


def find_runs(folder: Path, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """Directories of runs, submitted jobs and evaluations below `folder` (or itself), by name. Does not search inside
    them."""
    if kind_of_evaluation(folder) or (
        holds_recipe(folder) and any((folder / name).is_file() for name in (MANIFEST, SUBMITTED))
    ):
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
    kind = kind_of_evaluation(run_dir)
    if kind is not None:
        return _evaluation(run_dir, kind, queue)
    recipe = load_recipe(run_dir / RECIPE).recipe
    if kind_of(recipe).trains:
        return LiveRun(run_dir).snapshot(queue)
    # A submitted cache, or an evaluation that has not begun: only the queue knows its state.
    state, reason = ("new", "") if queue is None else state_of_job(queue)
    return _bare(run_dir, recipe.kind, state, reason, queue)


def _evaluation(folder: Path, kind: str, queue: QueueState | None) -> Snapshot:
    results, done = read_results(folder), count_records(folder)
    state, reason = (
        ("finished", "") if results else ("unfinished", "runs, or was interrupted: the same command goes on")
    )
    if not results and queue is not None and queue.state != "UNKNOWN":
        state, reason = state_of_job(queue)
    bare = _bare(folder, kind, state, reason, queue)
    written_s = max(path.stat().st_mtime for path in folder.iterdir() if path.is_file())
    return dataclasses.replace(bare, step=done, results=results, age_s=max(0.0, time.time() - written_s))


def _bare(run_dir: Path, kind: str, state: State, reason: str, queue: QueueState | None = None) -> Snapshot:
    return Snapshot(
        run=str(run_dir), kind=kind, state=state, reason=reason, step=0, steps=None, figures={}, history=[],
        step_s=None, eta_s=None, age_s=None, slowest=None, ranks=0, checkpoints=[], events=[], skipped=0, restarts=0,
        damaged=0, queue=queue,
    )  # fmt: skip


def runs_table(snapshots: Sequence[Snapshot]) -> Table:
    """Table with one row per run or evaluation."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("run", "kind", "state"):
        table.add_column(title, no_wrap=True)
    for title in ("progress", "last sign"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("result", no_wrap=True)
    for row in snapshots:
        age = "-" if row.age_s is None else f"{duration(row.age_s)} ago"
        table.add_row(
            Text(row.run), row.kind, Text(row.state, style=STYLES[row.state]), _progress(row), age, Text(_result(row))
        )
    return table


def _progress(row: Snapshot) -> str:
    if row.kind in TRAINED:
        return f"{row.step}/{'?' if row.steps is None else row.steps}"
    return f"{row.step} {EVALUATED[row.kind]}" if row.kind in EVALUATED and row.step else "-"


def _result(row: Snapshot) -> str:
    """What came out so far, and why the run is in its state."""
    loss = [f"loss {number(row.figures['loss'])}"] if "loss" in row.figures else []
    results = [results_text(row.results)] if row.results else []
    restarts = [f"{row.restarts} restarts"] if row.restarts else []
    return "; ".join([*loss, *results, *restarts, *([row.reason] if row.reason else [])])
