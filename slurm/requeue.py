"""Asking Slurm to run a job again after its time limit or a hang, and knowing when that leads nowhere."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Literal

from pokevla.errors import ClusterError
from pokevla.files import write_json_atomically
from slurm.commands import ask_slurm, last_words
from slurm.place import Place
from slurm.record import JOBS
from slurm.state import job_state

MAX_FRUITLESS = 3
"""Starts in a row that may reach their limit, or hang, without anything new saved. One can be bad luck: Slurm's
warning comes up to a minute early, and the file system may be slow on a morning."""
Cause = Literal["timeout", "hang"]
_FRUITLESS: dict[Cause, tuple[str, str]] = {
    "timeout": (
        "reached their time limit",
        "Give it more time: resources.time_limit of the recipe, or time_limit of the profile.",
    ),
    "hang": ("hung", "Where, and which rank: pokevla doctor hang {folder}"),
}
_WILL_RUN_AGAIN = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


def note_restart(folder: Path, piece: int | None, place: Place, progress: int, cause: Cause) -> None:
    """Remember how far a job was when it had to be started again (`progress`: steps saved, shards or trials done).

    Several ranks may say so of one start: it counts once. A job that is submitted anew starts counting anew.

    Raises:
        ClusterError: MAX_FRUITLESS starts in a row have not got any further.
    """
    path = folder / JOBS / ("restarts.json" if piece is None else f"restarts_{piece}.json")
    start = place.restarts if place.is_slurm else None  # submitit's local executor does not tell
    before: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):  # the first time; cut short: the count begins again
        before = json.loads(path.read_text())
    fruitless = 0
    if before.get("job_id") == place.job_id:
        is_known = start is not None and before["start"] == start
        got_on = not is_known and progress > before["progress"]
        fruitless = 0 if got_on else before["fruitless"] + (not is_known)
    path.parent.mkdir(exist_ok=True)
    write_json_atomically(path, {"job_id": place.job_id, "start": start, "progress": progress, "fruitless": fruitless})
    if fruitless >= MAX_FRUITLESS:
        how, remedy = _FRUITLESS[cause]
        raise ClusterError(
            f"{fruitless} starts in a row have {how} without saving anything new in {folder}.",
            remedy.format(folder=folder),
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
