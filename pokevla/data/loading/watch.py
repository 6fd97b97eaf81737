"""A read that never ends: file systems can hang, and a thread that reads cannot be interrupted. Without torch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pokevla.errors import DataError
from pokevla.files.remote.urls import is_url
from pokevla.shards.reading import ReadLog

if TYPE_CHECKING:
    from pokevla.data.loading.memory import Allocate  # imports torch

Result = TypeVar("Result")


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


def answer_within(seconds: float, path: Path, call: Callable[[], Result]) -> Result:
    """The result of `call()`, which opens `path`, or what it raises. It runs in a thread of its own, which is abandoned
    when it does not end.

    Raises:
        DataError: the call has not ended after `seconds`. Names the path.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the thread that called
            errors.append(error)

    thread = threading.Thread(target=run, name=f"open {path}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise DataError(
            f"Opening {path} has taken {seconds:.0f} s and has not ended: its file system does not answer.",
            "Check the file system, and resume. data.storage.timeout_s sets how long a read may take.",
        )
    if errors:
        raise errors[0]
    return results[0]
