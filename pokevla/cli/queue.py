"""The queue, for the verbs that look at runs: the one place where they ask Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monitoring.queue import QueueState


def ask_queue(run_dir: Path) -> QueueState | None:
    """State of the newest job of a run; None when it was not submitted."""
    return None


def stop_submitted(run_dir: Path) -> list[str] | None:
    """Stop the jobs of a run; one sentence for each, None when it was not submitted."""
    return None
