"""Deciding whether a job must be requeued, and requesting it from Slurm.

A SIGTERM has four possible causes. After the run has been saved, the state that the controller reports tells which:

- Slurm requeues or cancels the job, or its node fails: the job is no longer RUNNING, and Slurm has already decided what
  happens to it.
- Slurm preempts the job with a grace time: still RUNNING, PreemptTime is set. The job requests the requeue.
- `pokevla runs stop`: still RUNNING, and the job's comment says so. The job ends.
- Unexplained: still RUNNING. The job requests a restart. Slurm itself sends such signals: when a node stops answering,
  the message that should end the old step there is queued, resent every minute, and delivered when the node is back. By
  then the job may have restarted with the same job and step id, and the message ends the new start: SIGTERM, and
  SIGKILL after KillWait (Slurm 22.05, src/slurmctld/agent.c `_queue_agent_retry`, src/slurmd/slurmstepd/req.c
  SIG_TERM_KILL; later releases queue messages in the same way).
"""

from __future__ import annotations

from pokevla.errors import ClusterError, Requeued
from pokevla.jobs.task.job_task import JobTask
from pokevla.jobs.task.restarts import Restart
from slurm.commands import ask_slurm, last_error_line
from slurm.job_state import slurm_state

REQUEUED_CODE = Requeued.exit_code
_WILL_RUN_AGAIN = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


def stop_mark(start: int | None) -> str:
    """Job comment by which `pokevla runs stop` marks start number `start` (from 0) of a job.

    It is kept by the controller and not in a file, because a network file system may show a new file a minute late.
    """
    return f"pokevla-stop-{start or 0}"


def restart_after_signal(task: JobTask, reason: str) -> Restart | None:
    """How to restart a job that was asked to end and has saved; None if it must not restart. Called by rank 0.

    `reason` is "timeout" after the warning before the time limit, otherwise "terminated" (or "interrupted").

    Raises:
        ClusterError: Slurm does not answer.
    """
    if reason == "timeout":
        return Restart("timeout", "Saved")
    state = slurm_state(task.job_id)
    if state.is_being_preempted:
        # Slurm requeues such a job when the grace time is over, but treats one that ends by itself before that as
        # failed (seen with 22.05). So the job requests the requeue itself.
        return Restart(None, "Saved")
    if state.state != "RUNNING" or state.comment == stop_mark(task.restarts):
        return None
    return Restart("terminated", "Saved; nothing on record explains the signal (docs/cluster.md)")


def restart_after_kill(task: JobTask) -> Restart | None:
    """How to restart a job one of whose tasks was killed by a signal; None if it must not restart.

    Raises:
        ClusterError: Slurm does not answer.
    """
    state = slurm_state(task.job_id)
    if state.state != "RUNNING" or state.comment == stop_mark(task.restarts):
        return None
    return Restart("killed", "A task was killed")


def requeue(task: JobTask) -> None:
    """Request a requeue of this job. Slurm then ends its tasks.

    Raises:
        ClusterError: Slurm refuses, and has not requeued the job by itself either.
    """
    done = ask_slurm("scontrol", "requeue", task.job_id)
    if done.returncode == 0:
        return
    # If it was preempted or lost a node at the same time, Slurm has already requeued it and refuses to do so twice
    # ("Job is pending execution", while `scontrol show job` still reports COMPLETING).
    refusal = last_error_line(done)
    if "pending" in refusal or slurm_state(task.job_id).state in _WILL_RUN_AGAIN:
        return
    raise ClusterError(
        f"Job {task.job_id} has saved, but Slurm does not requeue it: {refusal}",
        "Submit it again: it continues from its checkpoint.",
    )
