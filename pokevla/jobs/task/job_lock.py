"""One job to a run: a file lock by rank 0, and beside it the id of the job that holds it.

The kernel lets the file lock go when rank 0's process ends, however it ends; but not every parallel file system takes
it between machines. The job's id is then what tells: its holder counts as long as Slurm says that job is running.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from pokevla.errors import ClusterError, UsageError
from pokevla.jobs.launcher import launcher_of
from pokevla.jobs.tracking import job_state
from pokevla.runs.creation import LOCK, run_lock

PATIENCE_S = 120.0
"""How long a restarted job waits for its former self to end: longer than Slurm's KillWait."""
_POLL_S = 1.0
_RUNS = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING")


def holder(run_dir: Path) -> str | None:
    """Id of the job that took the run last, or None."""
    try:
        return json.loads((run_dir / LOCK).read_text())["job_id"]
    except (OSError, ValueError, KeyError, TypeError):  # no lock yet, or one that no job has taken
        return None


def refuse_second_job(run_dir: Path, job_id: str = "") -> None:
    """Refuse when another job than `job_id` is training the run.

    Raises:
        UsageError: it is. ClusterError: a job holds the run and Slurm does not answer whether it runs.
    """
    other = holder(run_dir)
    if other is None or other == job_id:
        return
    launcher = launcher_of(other)
    if launcher is None or not launcher.is_available():
        return  # nobody here can tell how that job stands: the file lock decides alone
    state = job_state(other)
    if state.state in _RUNS:
        raise UsageError(
            f"The run {run_dir} is being trained by job {other} ({state.describe()}).",
            f"Look at it: pokevla watch {run_dir}. Stop it: pokevla runs stop {run_dir}",
        )


@contextlib.contextmanager
def job_lock(run_dir: Path, job_id: str, patience_s: float = PATIENCE_S) -> Iterator[int]:
    """Hold the run for this job until the block or the process ends. Taken by rank 0.

    Raises:
        UsageError: another job or process is training the run.
        ClusterError: this job's former self does not end.
    """
    refuse_second_job(run_dir, job_id)
    former_self = holder(run_dir) == job_id
    deadline = time.monotonic() + patience_s
    with contextlib.ExitStack() as stack:
        while True:
            try:
                descriptor = stack.enter_context(run_lock(run_dir))
                break
            except UsageError:
                if not former_self:
                    raise
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"Job {job_id} was restarted, but its former self has held {run_dir} for {patience_s:.0f} s more.",
                    f"See {run_dir / LOCK} for its host and process; a node that Slurm took for dead may be alive.",
                )
            time.sleep(_POLL_S)
        content = json.dumps({"job_id": job_id, "host": socket.gethostname(), "pid": os.getpid()})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content.encode(), 0)
        os.fsync(descriptor)
        try:
            yield descriptor
        finally:
            os.ftruncate(descriptor, 0)
