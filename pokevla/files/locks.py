"""Advisory locks (flock) with a bounded wait.

The kernel releases a lock when the last process that holds its descriptor ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from pokevla.errors import EnvironmentSetupError, PokeVLAError, UsageError
from pokevla.files.failures import naming_errors
from pokevla.files.holders import Holder, named_holder, read_holder, this_process

POLL_S = 0.05


@contextmanager
def advisory_lock(
    path: Path,
    *,
    busy: str,
    remedy: str,
    kind: type[PokeVLAError] = UsageError,
    shared: bool = False,
    wait_s: float = 0.0,
    holder: Holder | None = None,
) -> Iterator[int]:
    """Hold the lock file `path`, exclusively or `shared`, until the block ends.

    Yields its descriptor, open for reading and writing. A process that inherits it holds the lock too. A missing file
    is created and not deleted; while the lock is held exclusively it says by whom.

    Args:
        busy: first sentence of the error `kind` that is raised, with `remedy`, if the lock is still held after
            `wait_s`. The second one says who holds it.
        holder: what the file says; default: this process.

    Raises:
        DataError: the lock file cannot be opened.
        EnvironmentSetupError: the file system has no locks.
    """
    with naming_errors(path):
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o666)
    try:
        if not lock_within(descriptor, wait_s, shared=shared):
            other = read_holder(path)
            raise kind(busy if other is None else f"{busy} It is {other.describe()}.", remedy)
        with nullcontext() if shared else named_holder(descriptor, holder or this_process()):
            yield descriptor
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a process holds the exclusive lock; on a file system with shared locks also one on another machine.

    The check holds the shared lock for some microseconds, so taking the exclusive lock may need a second try.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO of this name must not block
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)  # releases the shared lock


def lock_within(descriptor: int, wait_s: float, *, shared: bool = False) -> bool:
    """Retry `try_lock` for `wait_s` seconds; False if the lock was not free in that time."""
    deadline = time.monotonic() + wait_s
    while not try_lock(descriptor, shared=shared):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(POLL_S, left))
    return True


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock of an open file or folder if it is free; returns whether it was.

    Raises:
        EnvironmentSetupError: the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise EnvironmentSetupError(
            f"This file system does not support locks ({error.strerror}).",
            "Mount it with locks (Lustre: -o flock), or use another one.",
        ) from error
    return True
