"""Restarting a job, and giving up when restarts make no progress."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pokevla.errors import ClusterError, DataError
from pokevla.files.records import as_type
from pokevla.files.texts import read_json, write_json
from pokevla.jobs.record import JOBS
from pokevla.jobs.task.job_task import JobTask

Cause = Literal["timeout", "hang", "killed", "terminated"]


@dataclass(frozen=True)
class Patience:
    """How many starts in a row may end for one cause without saving anything new, and what to say of the last."""

    starts: int
    how: str
    remedy: str


PATIENCE: dict[Cause, Patience] = {
    # A single one can be bad luck: Slurm's warning comes up to a minute early, and the file system may be slow.
    "timeout": Patience(
        3, "reached their time limit", "Raise resources.time_limit of the recipe or time_limit of the profile."
    ),
    "hang": Patience(3, "hung", "To see which rank hung, and where: pokevla doctor hang {folder}"),
    "killed": Patience(3, "been killed", "Look for an out-of-memory kill in the nodes' logs (lower batch.micro)."),
    # Slurm sends the messages that a dead node has missed a minute apart. Each can end a start that has not reached its
    # first save, and says nothing about the run. Such a start is cheap, and a run that is given up is not.
    "terminated": Patience(
        10,
        "been ended by a SIGTERM that no cancellation, preemption or stop explains",
        "Look for the sender in the logs of slurmctld and slurmd.",
    ),
}


@dataclass(frozen=True)
class Restart:
    """Why a job is to be restarted."""

    cause: Cause | None  # counted against PATIENCE; None for a preemption by Slurm, which does not count
    why: str  # for the log


@dataclass(frozen=True)
class _Count:
    job_id: str
    start: int | None
    progress: int
    fruitless: int


def record_restart(folder: Path, piece: int | None, task: JobTask, progress: int, cause: Cause) -> None:
    """Record the progress of a job that is to be restarted (`progress`: steps saved, shards or trials done).

    Reports of several ranks about one start count once. A newly submitted job starts at 0.

    Raises:
        ClusterError: as many starts in a row as PATIENCE allows have made no progress.
    """
    path = folder / JOBS / ("restarts.json" if piece is None else f"restarts_{piece}.json")
    start = task.restarts
    before: _Count | None = None
    with contextlib.suppress(DataError):  # first restart, or a truncated file: count from 0
        before = as_type(read_json(path), _Count, path)
    fruitless = 0
    if before is not None and before.job_id == task.job_id:
        is_known = start is not None and before.start == start
        got_on = not is_known and progress > before.progress
        fruitless = 0 if got_on else before.fruitless + (not is_known)
    path.parent.mkdir(exist_ok=True)
    count = _Count(task.job_id, start, progress, fruitless)
    write_json(path, asdict(count), sort_keys=True, kind=ClusterError)
    patience = PATIENCE[cause]
    if fruitless >= patience.starts:
        raise ClusterError(
            f"{fruitless} starts in a row have {patience.how} without saving anything new in {folder}.",
            patience.remedy.format(folder=shlex.quote(str(folder))),
        )
