"""When a job is to run again, asking Slurm for it, and knowing when that leads nowhere.

A SIGTERM has four senders. Who it was is decided by asking the controller, after the run has been saved:

- Slurm, because the job is being requeued or cancelled, or its node fails: the job is no longer RUNNING, and Slurm does
  with it what has been decided already.
- Slurm, for a preemption with grace time: still RUNNING, and PreemptTime is set. The job asks for the requeue.
- `pokevla runs stop`: still RUNNING, and the job's comment says so. The job ends.
- Nobody who is on record: still RUNNING. The job asks to be started again. Slurm itself sends such signals: when a node
  stops answering, the message that should end the old step there is queued, sent again every minute, and delivered
  when the node is back. By then the job may have started again, with the same job and step id, and the message ends
  the new start: SIGTERM, and SIGKILL after KillWait (Slurm 22.05, src/slurmctld/agent.c `_queue_agent_retry`,
  src/slurmd/slurmstepd/req.c SIG_TERM_KILL; later releases queue alike).
"""

from __future__ import annotations

from pokevla.errors import ClusterError, Requeued
from pokevla.jobs.task.place import Place
from pokevla.jobs.task.restarts import Restart
from slurm.commands import ask_slurm, last_words
from slurm.state import slurm_state

REQUEUED_CODE = Requeued.exit_code
_WILL_RUN_AGAIN = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


def stop_mark(start: int | None) -> str:
    """Comment that marks a job to be stopped by `pokevla runs stop`, in its start number `start` (from 0).

    In the controller and not in a file: a network file system may show a new file to the job's node a minute late.
    """
    return f"pokevla-stop-{start or 0}"


def restart_after_signal(place: Place, reason: str) -> Restart | None:
    """Whether a job that was told to end, and has saved, shall run again. Called by rank 0.

    `reason` is "timeout" after the warning before the time limit, otherwise "terminated" (or "interrupted").

    Raises:
        ClusterError: Slurm does not answer.
    """
    if reason == "timeout":
        return Restart("timeout", "Saved")
    state = slurm_state(place.job_id)
    if state.is_being_preempted:
        # Slurm requeues such a job when the grace is over, but not one that ends by itself before: that has failed
        # (seen with 22.05). So the job asks for the requeue itself.
        return Restart(None, "Saved")
    if state.state != "RUNNING" or state.comment == stop_mark(place.restarts):
        return None
    return Restart("killed", "Saved; the signal is on nobody's record (docs/cluster.md)")


def restart_after_kill(place: Place) -> Restart | None:
    """Whether a job of which a task was killed by a signal, without a word, shall run again.

    Raises:
        ClusterError: Slurm does not answer.
    """
    state = slurm_state(place.job_id)
    if state.state != "RUNNING" or state.comment == stop_mark(place.restarts):
        return None
    return Restart("killed", "A task was killed")


def requeue(place: Place) -> None:
    """Ask Slurm to run this job again. Slurm then ends its tasks by itself.

    Raises:
        ClusterError: Slurm refuses, and has not put the job back into the queue by itself either.
    """
    done = ask_slurm("scontrol", "requeue", place.job_id)
    if done.returncode == 0:
        return
    # Preempted, or a node lost, at the same time: Slurm has requeued it already, and refuses to do so twice ("Job is
    # pending execution", while `scontrol show job` still says COMPLETING).
    said = last_words(done)
    if "pending" in said or slurm_state(place.job_id).state in _WILL_RUN_AGAIN:
        return
    raise ClusterError(
        f"Job {place.job_id} has saved, but Slurm does not requeue it: {said}",
        "Submit it again: it goes on from its checkpoint.",
    )
