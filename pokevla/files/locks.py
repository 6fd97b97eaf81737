"""Advisory locks (flock) that never wait for ever.

The kernel lets a lock go when the last process that holds its descriptor ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pokevla.errors import EnvironmentSetupError, PokeVLAError, UsageError
from pokevla.files.failures import naming_errors

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
) -> Iterator[int]:
    """Hold the lock file `path`, alone or with others that share it, until the block ends.

    Yields its descriptor, open for reading and writing. A process that inherits it holds the lock too. The file is
    made where it is missing, its content is left alone, and it stays.

    Args:
        busy: what it means that somebody else holds the lock; raised as `kind` with `remedy` after `wait_s` seconds.

    Raises:
        DataError: the lock file cannot be opened.
        EnvironmentSetupError: the file system has no locks.
    """
    with naming_errors(path):
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        if not lock_within(descriptor, wait_s, shared=shared):
            raise kind(busy, remedy)
        yield descriptor
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock file alone. Where the file system shares locks, also on another machine.

    Looking takes the lock (shared) for some microseconds: who wants it alone should wait a moment.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)  # and with it the shared lock


def lock_within(descriptor: int, wait_s: float, *, shared: bool = False) -> bool:
    """`try_lock` again and again for `wait_s` seconds; False when that was not enough."""
    deadline = time.monotonic() + wait_s
    while not try_lock(descriptor, shared=shared):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(POLL_S, left))
    return True


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock of an open file or folder if it is free. EnvironmentSetupError where there are no locks."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise EnvironmentSetupError(
            f"This file system takes no locks ({error.strerror}).",
            "Mount it with locks (Lustre: -o flock), or use another one.",
        ) from error
    return True
