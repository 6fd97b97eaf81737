"""Creating the directory of a run, and locking it while the run is trained. Without torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pokevla.data.mixture import mixture_fingerprints
from pokevla.errors import UsageError
from pokevla.files.locks import advisory_lock
from pokevla.files.locks import is_locked as is_file_locked
from pokevla.files.texts import write_text
from pokevla.files.writing import atomic_folder
from pokevla.recipe.dump import dump_absolute
from pokevla.recipe.load import LoadedRecipe, recipe_hash
from pokevla.recipe.schema import TrainRecipe
from pokevla.runs.directory import RECIPE, holds_recipe, run_directory
from pokevla.telemetry.manifest import write_manifest

LOCK = ".lock"
LOCK_PATIENCE_S = 0.5
"""Retry time of `run_lock`: `is_locked` holds the lock for some microseconds and must not block a starting run."""


def create_run(loaded: LoadedRecipe, recipe: TrainRecipe) -> Path:
    """Create the run directory with `recipe.yaml` and `manifest.json`, complete or not at all.

    Raises:
        UsageError: a run of this name exists.
        DataError: a dataset is missing.
        DiskFullError: disk full.
    """
    run_dir = run_directory(recipe)
    if run_dir.exists():
        raise UsageError(
            f"The run {run_dir} exists.",
            f"Continue it: pokevla resume {run_dir}. Or give this run another name: name={recipe.name}-2",
        )
    provenance = _provenance(recipe)
    with atomic_folder(run_dir) as new:
        write_text(new / RECIPE, dump_absolute(loaded))
        write_manifest(new, provenance)
    return run_dir


def await_run(run_dir: Path, timeout_s: float = 120.0) -> None:
    """Wait until rank 0 has created the run directory: ranks started by a launcher all start at the same time.

    Raises:
        UsageError: it has not appeared after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not holds_recipe(run_dir):
        if time.monotonic() > deadline:
            raise UsageError(f"Rank 0 has not created {run_dir} within {timeout_s:.0f} s.", "See its log.")
        time.sleep(0.2)


def _provenance(recipe: TrainRecipe) -> dict[str, Any]:
    return {
        "recipe_hash": recipe_hash(recipe),
        "world_size": recipe.resources.world_size,
        "datasets": mixture_fingerprints(recipe),
    }


@contextmanager
def run_lock(run_dir: Path, wait_s: float = LOCK_PATIENCE_S) -> Iterator[int]:
    """Lock the run for this process and every process that inherits the yielded file descriptor.

    The kernel releases the lock when the last of them ends, however it ends.

    Raises:
        UsageError: another process still holds the lock after `wait_s` seconds.
    """
    busy = f"The run {run_dir} is being trained by another process."
    with advisory_lock(run_dir / LOCK, busy=busy, remedy="Stop it first.", wait_s=wait_s) as descriptor:
        yield descriptor


def is_locked(run_dir: Path) -> bool:
    """Whether a process is training the run; on a file system with shared locks also one on another machine."""
    return is_file_locked(run_dir / LOCK)
