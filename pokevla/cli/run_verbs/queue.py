"""The state of the queue, for the verbs that show runs: only this module asks the launcher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pokevla.errors import ClusterError

if TYPE_CHECKING:
    from monitoring.queue_state import QueueState


def ask_queue(run_dir: Path) -> QueueState | None:
    """State of the newest job of a run, UNKNOWN if no Slurm answers; None when it was not submitted."""
    from monitoring.queue_state import QueueState
    from pokevla.jobs.record import read_jobs
    from pokevla.jobs.tracking import explain, job_state

    jobs = read_jobs(run_dir)
    if not jobs:
        return None
    job_id = jobs[-1].job_id
    try:
        return QueueState(job_id, job_state(job_id).state, explain(run_dir) or "")
    except ClusterError as error:  # no Slurm on this machine
        return QueueState(job_id, "UNKNOWN", str(error))


def stop_submitted(run_dir: Path) -> list[str] | None:
    """Stop the jobs of a run; one sentence for each, None when it has none that runs or waits."""
    from pokevla.jobs.record import read_jobs
    from pokevla.jobs.stopping import stop_run
    from pokevla.jobs.tracking import active_job

    return stop_run(run_dir) if read_jobs(run_dir) and active_job(run_dir) else None
