"""Who looks on while a trial runs, and what that adds to the trial's record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypedDict

import numpy as np

from pokevla.evaluation.running.messages import Query
from pokevla.evaluation.trial_records import Outcome


class Watched(TypedDict, total=False):
    """Fields of a trial's record that come from its watcher."""

    video: str | None
    picture: str | None
    mask_iou: float | None


@dataclass(frozen=True)
class Ending:
    """How a trial has ended."""

    outcome: Outcome
    steps: int
    """Actions executed; of a crashed trial those before its last query."""


class TrialWatcher(Protocol):
    """Observes one attempt at a trial. An attempt that crashes and is repeated has no `finish`."""

    wants_masks: bool

    def see(self, query: Query, chunk: np.ndarray | None) -> None:
        """An observation, and all actions that the policy answered with: (K, A) raw. None if the benchmark's own expert
        acts, and for the observation after the last action."""
        ...

    def finish(self, ending: Ending) -> Watched:
        """The trial has ended. Returns what belongs in its record."""
        ...
