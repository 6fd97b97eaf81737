"""Keeps a second process off an evaluation.

OUTPUT/NAME/.lock      held alone by a process that runs all trials, shared by those that run some tasks each
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pokevla.files.failures import naming_errors
from pokevla.files.locks import advisory_lock, is_locked
from pokevla.files.names import make_parents

LOCK = ".lock"
COMBINE_LOCK = ".parts.lock"
_COMBINE_WAIT_S = 600.0
"""Combining the results of all tasks reads and writes small files; a busy file system may take minutes."""
_WAIT = "Wait until it ends, or give this evaluation another name: name=..."


@contextmanager
def evaluation_lock(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the evaluation in `folder`, which is created if it is missing.

    Raises:
        UsageError: another process holds it; says which, and since when.
    """
    with naming_errors(folder):
        make_parents(folder / LOCK)
    busy = f"The evaluation in {folder} is being run by another process."
    with advisory_lock(folder / LOCK, busy=busy, remedy=_WAIT, shared=shared):
        yield


def is_run_elsewhere(folder: Path) -> bool:
    """Whether another process holds the evaluation in `folder`."""
    return is_locked(folder / LOCK)


@contextmanager
def combine_lock(folder: Path) -> Iterator[None]:
    """Hold the right to combine the results of the tasks. Waits for a process that does the same.

    Raises:
        UsageError: it still holds it after ten minutes.
    """
    busy = f"The results in {folder} are being combined by another process."
    with advisory_lock(folder / COMBINE_LOCK, busy=busy, remedy=_WAIT, wait_s=_COMBINE_WAIT_S):
        yield
