"""State of a run's jobs, from the launcher of each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pokevla.jobs.launcher import launcher_of
from pokevla.jobs.record import JobRecord, read_exit, read_jobs
from pokevla.jobs.state import UNKNOWN, JobState


def job_state(job_id: str) -> JobState:
    """State of a job; UNKNOWN if its launcher has forgotten it or has not been imported.

    Raises:
        ClusterError: the launcher does not answer.
    """
    launcher = launcher_of(job_id)
    return JobState(job_id, UNKNOWN) if launcher is None else launcher.state(job_id)


def job_states(job_ids: Iterable[str]) -> dict[str, JobState]:
    """`job_state` by job id."""
    return {job_id: job_state(job_id) for job_id in dict.fromkeys(job_ids)}


def active_job(run_dir: Path) -> tuple[JobRecord, JobState] | None:
    """The newest running or queued job of a run, or None.

    Raises:
        ClusterError: the run has recorded jobs and Slurm does not answer.
    """
    for job in reversed(read_jobs(run_dir)):
        state = job_state(job.job_id)
        if state.is_active:
            return job, state
    return None


def explain(run_dir: Path) -> str | None:
    """State of the newest job of a run, and the failed job because of which it was cancelled; None without jobs.

    Raises:
        ClusterError: Slurm does not answer.
    """
    jobs = read_jobs(run_dir)
    if not jobs:
        return None
    job = jobs[-1]
    state = job_state(job.job_id)
    text = f"job {job.job_id} {state.describe()}"
    if state.state == "CANCELLED":
        for parent, name in zip(job.after, job.after_names, strict=True):
            before = job_state(parent)
            if before.has_failed:
                return f"{text}: it waited for job {parent} ({name}), which ended as {before.describe()}"
    if not state.is_active and state.state != "COMPLETED":
        ended = read_exit(run_dir, job.job_id)
        text += f": {ended[1]}" if ended is not None else ""
    return text
