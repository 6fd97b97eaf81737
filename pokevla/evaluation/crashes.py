"""Crashed trials make an evaluation incomplete: it ends with an error that names them."""

from __future__ import annotations

from pathlib import Path

from pokevla.errors import SimulationError
from pokevla.evaluation.folder import EPISODES
from pokevla.evaluation.trial_records import read_records


def refuse_crashes(folder: Path) -> None:
    """Raise SimulationError if trials in the evaluation of `folder` crashed, and were not repeated since."""
    crashed = [record for record in read_records(folder / EPISODES) if record.outcome == "crashed"]
    if not crashed:
        return
    first = crashed[0]
    raise SimulationError(
        f"{len(crashed)} trials of {folder} crashed; the first, {first.suite} task {first.task_index} state "
        f"{first.init_state_index}: {first.error}.",
        "They count neither for nor against the policy. Run the same command again: only they are repeated.",
    )
