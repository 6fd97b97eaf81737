"""Starting a job again, and knowing when that leads nowhere."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pokevla.errors import ClusterError
from pokevla.files.texts import write_json
from pokevla.jobs.record import JOBS
from pokevla.jobs.task.place import Place

MAX_FRUITLESS = 3
"""Starts in a row that may reach their limit, or hang, without anything new saved. One can be bad luck: Slurm's
warning comes up to a minute early, and the file system may be slow on a morning."""
Cause = Literal["timeout", "hang", "killed"]
_FRUITLESS: dict[Cause, tuple[str, str]] = {
    "timeout": (
        "reached their time limit",
        "Give it more time: resources.time_limit of the recipe, or time_limit of the profile.",
    ),
    "hang": ("hung", "Where, and which rank: pokevla doctor hang {folder}"),
    "killed": (
        "been ended by a signal that no cancellation, preemption or stop explains",
        "Look for an out-of-memory kill in the nodes' logs (lower batch.micro), or for the sender in slurmd's.",
    ),
}


@dataclass(frozen=True)
class Restart:
    """A job is to run again."""

    cause: Cause | None  # what counts against MAX_FRUITLESS; None: Slurm's own doing
    why: str  # for the log


def note_restart(folder: Path, piece: int | None, place: Place, progress: int, cause: Cause) -> None:
    """Remember how far a job was when it had to be started again (`progress`: steps saved, shards or trials done).

    Several ranks may say so of one start: it counts once. A job that is submitted anew starts counting anew.

    Raises:
        ClusterError: MAX_FRUITLESS starts in a row have not got any further.
    """
    path = folder / JOBS / ("restarts.json" if piece is None else f"restarts_{piece}.json")
    start = place.restarts
    before: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):  # the first time; cut short: the count begins again
        before = json.loads(path.read_text())
    fruitless = 0
    if before.get("job_id") == place.job_id:
        is_known = start is not None and before["start"] == start
        got_on = not is_known and progress > before["progress"]
        fruitless = 0 if got_on else before["fruitless"] + (not is_known)
    path.parent.mkdir(exist_ok=True)
    content = {"job_id": place.job_id, "start": start, "progress": progress, "fruitless": fruitless}
    write_json(path, content, sort_keys=True, kind=ClusterError)
    if fruitless >= MAX_FRUITLESS:
        how, remedy = _FRUITLESS[cause]
        raise ClusterError(
            f"{fruitless} starts in a row have {how} without saving anything new in {folder}.",
            remedy.format(folder=folder),
        )
