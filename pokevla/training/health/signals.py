"""Signals that ask a job to stop. A handler only sets a flag: ranks look at it together, at the step boundary.

SIGUSR2 is the warning before the time limit (not USR1: NCCL may catch that), SIGTERM comes from Slurm's preemption,
`scontrol requeue` and `scancel`, SIGINT from a terminal. No torch here: a rank installs this before anything heavy.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pokevla.errors import Requeued

REASONS: dict[int, str] = {
    signal.SIGINT: "interrupted",
    signal.SIGUSR2: "timeout",
    signal.SIGTERM: "terminated",
}
"""Signal -> reason, the stronger one later. SIGTERM overrides SIGUSR2: Slurm itself starts a preempted job again, and
one that was cancelled while it saved must not come back."""
_ORDER = ("", *REASONS.values())


class StopFlag:
    """Whether, and why, this rank was asked to stop. `code` is a number, so that ranks can take the largest."""

    def __init__(self) -> None:
        self.code = 0

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """Remember a signal. All that a handler does."""
        self.code = max(self.code, _ORDER.index(REASONS[number]))


def reason_of(code: int) -> str | None:
    """The reason that a code stands for; None for 0."""
    return _ORDER[code] or None


def requeued(reason: str, step: int, run_dir: Path) -> Requeued:
    """The error that ends a job which was asked to stop, with everything up to `step` saved."""
    return Requeued(f"saved at step {step}; continue with: pokevla resume {run_dir}", reason=reason)


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Own handlers within the block, the former ones after it (submitit has its own for SIGUSR2).

    Whoever starts ranks may hold these signals back until here (`pokevla.distributed.process`), so that none is
    deadly before its handler stands.
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
