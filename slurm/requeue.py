"""Asking Slurm to run a job again after its time limit, and knowing when that leads nowhere."""

from __future__ import annotations

import json
from pathlib import Path

from pokevla.checkpoint.files import write_json_atomically
from pokevla.errors import ClusterError
from slurm.commands import ask_slurm, last_words
from slurm.place import Place
from slurm.record import JOBS
from slurm.state import job_state

MAX_FRUITLESS = 3
"""Jobs in a row that may reach their limit without anything new saved. One can be bad luck: Slurm's warning comes up to
a minute early, and the file system may be slow on a morning."""
_WILL_RUN_AGAIN = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


def note_timeout(folder: Path, piece: int | None, progress: int) -> None:
    """Remember how far a job was when its time was up (`progress`: steps saved, shards or trials done).

    Raises:
        ClusterError: MAX_FRUITLESS jobs in a row have not got any further.
    """
    path = folder / JOBS / ("timeouts.json" if piece is None else f"timeouts_{piece}.json")
    try:
        before = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # the first time; or cut short, and then the count begins again
        before = {"progress": -1, "fruitless": 0}
    fruitless = before["fruitless"] + 1 if progress <= before["progress"] else 0
    path.parent.mkdir(exist_ok=True)
    write_json_atomically(path, {"progress": progress, "fruitless": fruitless})
    if fruitless >= MAX_FRUITLESS:
        path.unlink()  # whoever submits it again, with more time, starts counting anew
        raise ClusterError(
            f"{fruitless} jobs in a row have reached their time limit without saving anything new in {folder}.",
            "Give it more time: resources.time_limit of the recipe, or time_limit of the profile.",
        )


def is_being_preempted(place: Place) -> bool:
    """Whether the job is in the grace time that its partition gives to preempted jobs.

    Slurm requeues such a job when the grace is over, but not one that ends by itself before: that has failed (seen with
    22.05). So the job has to wait for its end, or to ask for the requeue itself.
    """
    return place.is_slurm and job_state(place.job_id).is_being_preempted


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
    if "pending" in said or job_state(place.job_id).state in _WILL_RUN_AGAIN:
        return
    raise ClusterError(
        f"Job {place.job_id} has saved, but Slurm does not requeue it: {said}",
        "Submit it again: it goes on from its checkpoint.",
    )
