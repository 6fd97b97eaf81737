"""What the queue says about a run. The command line asks it: monitoring and slurm do not know each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class QueueState:
    """The newest job of a run."""

    job_id: str
    state: str  # Slurm's word: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, ...; UNKNOWN if it forgot
    text: str  # one phrase for a person: what it is doing, or why it waits or was cancelled

    @property
    def waits(self) -> bool:
        """Whether it will still start (or start again)."""
        return self.state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT")

    @property
    def runs(self) -> bool:
        """Whether it has its nodes."""
        return self.state in ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING")


AskQueue = Callable[[Path], QueueState | None]
"""Run directory -> state of its newest job; None when the run was not submitted."""
