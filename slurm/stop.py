"""`pokevla runs stop`: let a job save, end, and not come back."""

from __future__ import annotations

from pathlib import Path

from pokevla.errors import UsageError
from slurm.commands import run_slurm
from slurm.record import LOCAL, read_jobs
from slurm.requeue import stop_mark
from slurm.state import job_state


def stop_run(run_dir: Path) -> list[str]:
    """Stop every job of a run that runs or waits; returns one sentence per job.

    A running job gets SIGTERM, saves, and ends without being requeued; it may take as long as saving takes (`scancel`
    alone would kill it after KillWait, 30 s on most clusters). The job's comment is set first: a SIGTERM that nothing
    explains makes a job start again. Jobs that wait for it are cancelled by Slurm.

    Raises:
        UsageError: no job of this run runs or waits.
        ClusterError: Slurm refuses.
    """
    said = []
    for job in read_jobs(run_dir):
        state = job_state(job.job_id)
        if not state.is_active:
            continue
        if job.job_id.startswith(LOCAL):
            _terminate(int(job.job_id.removeprefix(LOCAL)))
            said.append(f"process {job.job_id.removeprefix(LOCAL)} was told to save and end")
        elif state.state == "RUNNING" and job.array_size == 0:
            run_slurm("scontrol", "update", f"JobId={job.job_id}", f"Comment={stop_mark(state.restarts or 0)}")
            run_slurm("scancel", "--signal=TERM", job.job_id)
            said.append(f"job {job.job_id} was told to save and end")
        else:
            run_slurm("scancel", job.job_id)
            said.append(f"job {job.job_id} ({state.describe()}) was cancelled")
    if not said:
        raise UsageError(f"No job of {run_dir} runs or waits.", "`pokevla runs ls` shows how each ended.")
    return said


def _terminate(pid: int) -> None:
    """SIGTERM to a local job's controller, which passes it on to its tasks."""
    import os
    import signal

    os.kill(pid, signal.SIGTERM)
