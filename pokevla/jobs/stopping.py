"""`pokevla runs stop`: have a job save and end without being restarted."""

from __future__ import annotations

from pathlib import Path

from pokevla.errors import UsageError
from pokevla.jobs.launcher import launcher_of
from pokevla.jobs.record import read_jobs
from pokevla.jobs.tracking import job_state


def stop_run(run_dir: Path) -> list[str]:
    """Stop every running or queued job of a run; returns one sentence per job.

    Raises:
        UsageError: no job of this run is running or queued.
        ClusterError: the launcher refuses.
    """
    sentences = []
    for job in read_jobs(run_dir):
        launcher, state = launcher_of(job.job_id), job_state(job.job_id)
        if launcher is not None and state.is_active:
            sentences.append(launcher.stop(job, state))
    if not sentences:
        raise UsageError(f"No job of {run_dir} is running or queued.", "`pokevla runs ls` shows how each ended.")
    return sentences
