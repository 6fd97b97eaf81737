"""Creating the directory of a run, and locking it while the run is trained. Without torch."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pokevla.data.mixture import mixture_fingerprints
from pokevla.errors import DataError, UsageError, command_line
from pokevla.files.failures import naming_errors
from pokevla.files.holders import Holder, read_holder
from pokevla.files.locks import advisory_lock
from pokevla.files.locks import is_locked as is_file_locked
from pokevla.files.names import put_in_place
from pokevla.files.texts import write_text
from pokevla.files.writing import atomic_folder
from pokevla.recipe.dump import dump_absolute
from pokevla.recipe.load import LoadedRecipe, recipe_hash
from pokevla.recipe.schema import TrainRecipe
from pokevla.runs.directory import (
    CHECKPOINTS,
    EXPORT,
    RECIPE,
    SUBMITTED,
    holds_recipe,
    refuse_overlapping_output,
    run_directory,
)
from pokevla.telemetry.heartbeat import SILENT_AFTER, read_heartbeats, reporting_elsewhere
from pokevla.telemetry.jsonl import EVENTS
from pokevla.telemetry.manifest import write_manifest

LOCK = ".lock"
_STOP = "Stop it first, or wait until it ends."
_POLL_S = 0.5
_BEGINS_S = 60.0
LOCK_PATIENCE_S = 0.5
"""Retry time of `run_lock`: `is_locked` holds the lock for some microseconds and must not block a starting run."""


def create_run(loaded: LoadedRecipe, recipe: TrainRecipe) -> Path:
    """Create the run directory with `recipe.yaml` and `manifest.json`, complete or not at all.

    Raises:
        UsageError: a run of this name exists, or its directory would overlap what the recipe reads.
        DataError: a dataset is missing.
        DiskFullError: disk full.
    """
    run_dir = run_directory(recipe)
    if run_dir.exists():
        raise UsageError(
            f"The run {run_dir} exists.",
            f"Continue it: {command_line('resume', run_dir)}. Or give this run another name: name={recipe.name}-2",
        )
    refuse_overlapping_output(recipe)
    provenance = _provenance(recipe)
    with atomic_folder(run_dir) as new:
        write_text(new / RECIPE, dump_absolute(loaded))
        write_manifest(new, provenance)
    return run_dir


def has_progress(run_dir: Path) -> bool:
    """Whether a run has a checkpoint, whole or not, or a model: something that `pokevla resume` can continue."""
    return any(any(run_dir.glob(pattern)) for pattern in (f"{CHECKPOINTS}/step-*", EXPORT))


def set_failed_run_aside(run_dir: Path, *, jobs_are_over: bool = False) -> Path | None:
    """Rename the directory of a run that failed before its first checkpoint, so that its name is free again; returns
    the new name. None if there is nothing to do: no run, one that is in use or may still begin, or one with progress.

    `jobs_are_over`: no job that was submitted for it runs or waits. Without it a submitted run is left alone.
    """
    if not holds_recipe(run_dir) or has_progress(run_dir):
        return None
    if (run_dir / SUBMITTED).exists():
        if not jobs_are_over:
            return None
    elif not (run_dir / EVENTS).exists() and time.time() - (run_dir / RECIPE).stat().st_mtime < _BEGINS_S:
        return None  # made a moment ago: another process may be about to train it
    try:
        with run_lock(run_dir), naming_errors(run_dir):
            numbers = itertools.count(1)
            names = (run_dir.with_name(f"{run_dir.name}.failed-{number}") for number in numbers)
            aside = next(name for name in names if not name.exists())
            put_in_place(run_dir, aside)
            return aside
    except UsageError:  # in use
        return None


def _provenance(recipe: TrainRecipe) -> dict[str, Any]:
    return {
        "recipe_hash": recipe_hash(recipe),
        "world_size": recipe.resources.world_size,
        "datasets": mixture_fingerprints(recipe),
    }


@contextmanager
def run_lock(run_dir: Path, wait_s: float = LOCK_PATIENCE_S, holder: Holder | None = None) -> Iterator[int]:
    """Lock the run for this process and every process that inherits the yielded file descriptor: whatever writes to a
    run, trains it or deletes from it holds this lock.

    The kernel releases the lock when the last of them ends, however it ends. `holder`: as in `advisory_lock`.

    Raises:
        UsageError: another process still holds the lock after `wait_s` seconds; says which, and since when.
    """
    busy = f"The run {run_dir} is in use by another process."
    with advisory_lock(run_dir / LOCK, busy=busy, remedy=_STOP, wait_s=wait_s, holder=holder) as descriptor:
        yield descriptor


def refuse_rank_elsewhere(run_dir: Path) -> None:
    """Refuse to train a run while a rank on another machine has a fresh heartbeat: not every file system shares locks
    between machines.

    Raises:
        UsageError: names rank, host and process.
    """
    try:
        beats = reporting_elsewhere(read_heartbeats(run_dir), datetime.now(UTC))
    except DataError:  # a damaged heartbeat says nothing
        return
    for beat in beats:
        silent_s = SILENT_AFTER * beat.every_s
        raise UsageError(
            f"The run {run_dir} is being trained by rank {beat.rank} on {beat.host} (process {beat.pid}), whose last "
            f"heartbeat is {max(0.0, beat.age_s(datetime.now(UTC))):.0f} s old.",
            f"{_STOP} If that machine is down, try again in {silent_s:.0f} s.",
        )


def await_rank_0(run_dir: Path, rendezvous: str, timeout_s: float) -> None:
    """Wait until rank 0 of this job has locked the run, and has created it if it is new. Called by the other ranks,
    which a launcher starts at the same time.

    Raises:
        UsageError: another job holds the run, or rank 0 has not locked it after `timeout_s`.
    """
    deadline, other = time.monotonic() + timeout_s, None
    while True:
        holder, locked = read_holder(run_dir / LOCK), is_locked(run_dir)
        if holder is not None and holder.rendezvous == rendezvous:
            if (locked or holder.host != socket.gethostname()) and holds_recipe(run_dir):
                return
        elif locked and holder is not None:
            if holder == other:  # twice in a row: a new holder needs a moment to write its name
                raise UsageError(f"The run {run_dir} is in use by {holder.describe()}.", _STOP)
            other = holder
        if time.monotonic() > deadline:
            raise UsageError(f"Rank 0 has not started to train {run_dir} within {timeout_s:.0f} s.", "See its log.")
        time.sleep(_POLL_S)


def is_locked(run_dir: Path) -> bool:
    """Whether a process is training the run; on a file system with shared locks also one on another machine."""
    return is_file_locked(run_dir / LOCK)
