"""Keeps a second job off a run: rank 0 holds a file lock and writes the job id into the lock file.

The kernel releases the file lock when rank 0 ends, however it ends; but not every parallel file system enforces it
between machines. There the job id decides: the run is taken as long as Slurm reports that job as running.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from pokevla.errors import ClusterError, UsageError, command_line
from pokevla.files.holders import read_holder, this_process
from pokevla.jobs.launcher import launcher_of
from pokevla.jobs.tracking import job_state
from pokevla.runs.creation import LOCK, run_lock

PATIENCE_S = 120.0
"""How long a restarted job waits for its previous start to end: longer than Slurm's KillWait."""
_POLL_S = 1.0
_RUNS = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING")


def holder(run_dir: Path) -> str | None:
    """Id of the job that holds the run, or was killed while it did; None if none."""
    last = read_holder(run_dir / LOCK)
    return last.job_id or None if last is not None else None


def refuse_second_job(run_dir: Path, job_id: str = "") -> None:
    """Refuse if another job than `job_id` is training the run.

    Raises:
        UsageError: another job is training the run.
        ClusterError: a job has locked the run, and Slurm does not answer whether it is running.
    """
    other = holder(run_dir)
    if other is None or other == job_id:
        return
    launcher = launcher_of(other)
    if launcher is None or not launcher.is_available():
        return  # that job's state cannot be queried here: only the file lock decides
    state = job_state(other)
    if state.state in _RUNS:
        raise UsageError(
            f"The run {run_dir} is being trained by job {other} ({state.describe()}).",
            f"Watch it: {command_line('watch', run_dir)}. Stop it: {command_line('runs', 'stop', run_dir)}",
        )


@contextlib.contextmanager
def job_lock(run_dir: Path, job_id: str, patience_s: float = PATIENCE_S) -> Iterator[int]:
    """Lock the run for this job until the block or the process ends. Called by rank 0.

    Raises:
        UsageError: another job or process is training the run.
        ClusterError: a previous start of this job does not end within `patience_s`.
    """
    refuse_second_job(run_dir, job_id)
    is_restart = holder(run_dir) == job_id
    deadline = time.monotonic() + patience_s
    with contextlib.ExitStack() as stack:
        while True:
            try:
                descriptor = stack.enter_context(run_lock(run_dir, holder=this_process(job_id=job_id)))
                break
            except UsageError:
                if not is_restart:
                    raise
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"Job {job_id} was restarted, but its previous start still holds {run_dir} after "
                    f"{patience_s:.0f} s.",
                    f"See {run_dir / LOCK} for its host and process; a node that Slurm considers dead may be alive.",
                )
            time.sleep(_POLL_S)
        yield descriptor
