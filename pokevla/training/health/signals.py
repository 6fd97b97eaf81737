"""Signals that ask a job to stop. The handler only sets a flag; all ranks check it together after each step.

SIGUSR2 is the warning before the time limit (not USR1: NCCL may catch that), SIGTERM comes from Slurm's preemption,
`scontrol requeue` and `scancel`, SIGINT from a terminal. No torch here: a rank installs the handlers before any heavy
import.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pokevla.errors import Requeued, command_line

REASONS: dict[int, str] = {
    signal.SIGINT: "interrupted",
    signal.SIGUSR2: "timeout",
    signal.SIGTERM: "terminated",
}
"""Signal -> reason, in increasing priority. SIGTERM overrides SIGUSR2: Slurm restarts a preempted job itself, and a job
cancelled while saving must not be requeued."""
_ORDER = ("", *REASONS.values())


class StopFlag:
    """Whether and why this rank was asked to stop. `code` is a number, so that ranks can agree on the maximum."""

    def __init__(self) -> None:
        self.code = 0

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """Record a signal. The handler does nothing else."""
        self.code = max(self.code, _ORDER.index(REASONS[number]))


def reason_of(code: int) -> str | None:
    """The reason for a stop code; None for 0."""
    return _ORDER[code] or None


def requeued(reason: str, step: int, run_dir: Path) -> Requeued:
    """The error that ends a job after a request to stop, with everything up to `step` saved."""
    return Requeued(f"saved at step {step}; continue with: {command_line('resume', run_dir)}", reason=reason)


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Install the handlers for the block and restore the previous ones after it (submitit has its own for SIGUSR2).

    The launching process may block these signals until this point (`pokevla.distributed.process`), so that none kills a
    rank before its handler is installed.
    """
    flag = StopFlag()
    before = {number: signal.signal(number, flag.note) for number in REASONS}
    held_back = signal.pthread_sigmask(signal.SIG_UNBLOCK, REASONS)
    try:
        yield flag
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held_back)
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
