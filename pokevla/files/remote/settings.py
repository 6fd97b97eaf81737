"""How storage is read that may be slow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class StorageSettings:
    """The values of a recipe's `data.storage` as plain arguments; defaults are ours."""

    bytes_in_flight: int = 256 * MIB
    """Most bytes that a process has requested from object stores and not received."""
    attempts: int = 6
    """How often a request is tried."""
    timeout_s: float = 60.0
    """How long one request, or one read of a local file, may take."""
    gap_bytes: int = 256 << 10
    """Two records of a shard that lie at most this far apart are one request."""
    staging: Path | None = None
    """Folder on a fast disk of the node for copies of shards."""
    staging_bytes: int = 0
    """Most bytes of these copies."""


QUICK = StorageSettings(attempts=3, timeout_s=20.0)
"""For a check before a job: somebody waits for it."""
