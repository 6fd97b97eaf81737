"""State of a run's newest job. The command line provides it, because monitoring and slurm do not import each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class QueueState:
    """The newest job of a run."""

    job_id: str
    state: str  # Slurm's: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, ...; UNKNOWN if forgotten
    text: str  # a phrase for a person: its state, or why it waits or was cancelled

    @property
    def waits(self) -> bool:
        """Whether it will still start or restart."""
        return self.state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT")

    @property
    def runs(self) -> bool:
        """Whether it has been allocated nodes."""
        return self.state in ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING")


AskQueue = Callable[[Path], QueueState | None]
"""Run directory -> state of its newest job; None if the run was not submitted."""
