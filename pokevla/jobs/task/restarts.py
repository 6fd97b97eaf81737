"""Restarting a job, and giving up when restarts make no progress."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pokevla.errors import ClusterError
from pokevla.files.texts import write_json
from pokevla.jobs.record import JOBS
from pokevla.jobs.task.job_task import JobTask

MAX_FRUITLESS = 3
"""Starts in a row that may reach their limit or hang without saving anything new. A single one can be bad luck: Slurm's
warning comes up to a minute early, and the file system may be slow for a while."""
Cause = Literal["timeout", "hang", "killed"]
_FRUITLESS: dict[Cause, tuple[str, str]] = {
    "timeout": (
        "reached their time limit",
        "Raise resources.time_limit of the recipe or time_limit of the profile.",
    ),
    "hang": ("hung", "To see which rank hung, and where: pokevla doctor hang {folder}"),
    "killed": (
        "been killed by a signal that no cancellation, preemption or stop explains",
        "Look for an out-of-memory kill in the nodes' logs (lower batch.micro), or for the sender in slurmd's.",
    ),
}


@dataclass(frozen=True)
class Restart:
    """Why a job is to be restarted."""

    cause: Cause | None  # counted against MAX_FRUITLESS; None for a preemption by Slurm, which does not count
    why: str  # for the log


def record_restart(folder: Path, piece: int | None, task: JobTask, progress: int, cause: Cause) -> None:
    """Record the progress of a job that is to be restarted (`progress`: steps saved, shards or trials done).

    Reports of several ranks about one start count once. A newly submitted job starts at 0.

    Raises:
        ClusterError: MAX_FRUITLESS starts in a row have made no progress.
    """
    path = folder / JOBS / ("restarts.json" if piece is None else f"restarts_{piece}.json")
    start = task.restarts
    before: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):  # first restart, or a truncated file: count from 0
        before = json.loads(path.read_text())
    fruitless = 0
    if before.get("job_id") == task.job_id:
        is_known = start is not None and before["start"] == start
        got_on = not is_known and progress > before["progress"]
        fruitless = 0 if got_on else before["fruitless"] + (not is_known)
    path.parent.mkdir(exist_ok=True)
    content = {"job_id": task.job_id, "start": start, "progress": progress, "fruitless": fruitless}
    write_json(path, content, sort_keys=True, kind=ClusterError)
    if fruitless >= MAX_FRUITLESS:
        how, remedy = _FRUITLESS[cause]
        raise ClusterError(
            f"{fruitless} starts in a row have {how} without saving anything new in {folder}.",
            remedy.format(folder=folder),
        )
