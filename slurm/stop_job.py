"""Stopping a Slurm job permanently."""

from __future__ import annotations

from pokevla.jobs.record import JobRecord
from pokevla.jobs.state import JobState
from slurm.commands import run_slurm
from slurm.requeue import stop_mark


def stop_job(job: JobRecord, state: JobState) -> str:
    """Stop an active job; returns a sentence for a person.

    A running job gets SIGTERM, saves, and ends without being requeued. It may save as long as it needs; `scancel` alone
    would kill it after KillWait, 30 s on most clusters. The job's comment is set first, because an unexplained SIGTERM
    makes a job restart. Slurm cancels the jobs that wait for it.

    Raises:
        ClusterError: Slurm refuses.
    """
    if state.state == "RUNNING" and job.array_size == 0:
        run_slurm("scontrol", "update", f"JobId={job.job_id}", f"Comment={stop_mark(state.restarts)}")
        run_slurm("scancel", "--signal=TERM", job.job_id)
        return f"job {job.job_id} was asked to save and end"
    run_slurm("scancel", job.job_id)
    return f"job {job.job_id} ({state.describe()}) was cancelled"
