"""A read that never ends: file systems can hang, and a thread that reads cannot be interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pokevla.data.loading.memory import Allocate
from pokevla.errors import DataError
from pokevla.files.remote.urls import is_url
from pokevla.shards.reading import ReadLog


@dataclass(frozen=True)
class Watch:
    """What the threads of a loader are reading, and how long a read may take."""

    log: ReadLog
    timeout_s: float

    @property
    def interval_s(self) -> float:
        """How often to look."""
        return min(1.0, self.timeout_s / 4)

    def overdue(self) -> dict[int, DataError]:
        """Thread -> the error that names the file, of every read that takes too long.

        Requests to object stores are not meant: they have time-outs of their own.
        """
        errors = {}
        for thread, (seconds, place) in self.log.reading().items():
            if seconds > self.timeout_s and not is_url(place):
                errors[thread] = DataError(
                    f"Reading {place} has taken {seconds:.0f} s and has not ended: its file system does not answer.",
                    "Check the file system, and resume. data.storage.timeout_s sets how long a read may take; "
                    "data.storage.staging keeps copies on a disk of the node.",
                )
        return errors


@dataclass(frozen=True)
class WatchedMaker:
    """A function that makes batches, and what there is to know about its reads."""

    make: Callable[[np.ndarray, Allocate], Any]
    watch: Watch

    def __call__(self, positions: np.ndarray, allocate: Allocate) -> Any:
        """The batch of positions (B,) int64, in memory of `allocate`."""
        return self.make(positions, allocate)
