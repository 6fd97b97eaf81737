"""Which process computes which shard of a cache: claims that end with the process, and nothing that coordinates.

A claim is a lock on `.build.<shard>.lock` in the directory of the cache. The kernel releases it when its process ends,
however it ends, so the shard of a killed process is free at once and needs no expiry date. Lustre and NFS share such
locks between machines; a file system without locks is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pokevla.files.failures import naming_errors
from pokevla.files.holders import named_holder, read_holder, this_process
from pokevla.files.locks import advisory_lock, is_locked, try_lock

_FINISH_WAIT_S = 60.0
_LOCKS = ".build.*.lock"


@contextmanager
def claim_shard(directory: Path, shard: str) -> Iterator[bool]:
    """Yield whether this process holds the claim on a shard; False if another one holds it. Never waits.

    Raises:
        DataError: the lock file cannot be opened.
        EnvironmentSetupError: the file system has no locks.
    """
    path = _lock_of(directory, shard)
    with naming_errors(path):
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o666)
    try:
        if not try_lock(descriptor):
            yield False
            return
        with named_holder(descriptor, this_process()):
            yield True
    finally:
        os.close(descriptor)


def claimed_by(directory: Path, shard: str) -> str:
    """Who holds the claim on a shard, for a message."""
    holder = read_holder(_lock_of(directory, shard))
    return "another process" if holder is None else holder.describe()


@contextmanager
def finish_lock(directory: Path) -> Iterator[None]:
    """Hold the lock for writing manifest and marker. Waits for another process that holds it, usually very briefly.

    Raises:
        UsageError: the other process still holds it after a minute.
    """
    busy = f"Another process is completing {directory}."
    remedy = "Run the same command again."
    with advisory_lock(_lock_of(directory, "manifest"), busy=busy, remedy=remedy, wait_s=_FINISH_WAIT_S):
        yield


def is_being_built(directory: Path) -> bool:
    """Whether a process computes a shard of the cache or completes it."""
    return any(is_locked(path) for path in directory.glob(_LOCKS))


def remove_locks(directory: Path) -> None:
    """Delete the lock files of a complete cache, which nobody needs."""
    for path in directory.glob(_LOCKS):
        path.unlink(missing_ok=True)


def _lock_of(directory: Path, name: str) -> Path:
    return directory / f".build.{name}.lock"
