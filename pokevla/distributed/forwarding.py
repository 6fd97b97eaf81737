"""Forwards stop signals of the parent process to its ranks, so that they save before they stop."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import Self

from pokevla.errors import TrainingError

STOP_SIGNALS = (signal.SIGINT, signal.SIGUSR2, signal.SIGTERM)


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Block the stop signals. A process started within the block inherits this and unblocks them in its handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class SignalForwarder:
    """Catches stop signals within its block; the caller calls `forward` regularly to pass them on."""

    def __init__(
        self, ranks: Sequence[subprocess.Popen[bytes]], grace_s: float, on_signal: Callable[[str], None] | None
    ) -> None:
        """`grace_s`: seconds from the first signal until the ranks must have ended. `on_signal` receives a sentence
        about what happens."""
        self._ranks, self._grace_s, self._on_signal = ranks, grace_s, on_signal
        self._caught: list[int] = []
        self._forwarded = 0
        self._deadline: float | None = None
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._catch) for number in STOP_SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _catch(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in self._caught:
            raise KeyboardInterrupt  # a second Ctrl-C: do not wait for the ranks
        self._caught.append(number)

    def forward(self) -> None:
        """Send the caught signals to every running rank.

        Raises:
            TrainingError: the ranks have not ended within the grace time.
        """
        new = self._caught[self._forwarded :]
        self._forwarded += len(new)
        for number in new:
            for process in self._ranks:
                process.send_signal(number)  # does nothing once it has ended
        if new and self._deadline is None:
            self._deadline = time.monotonic() + self._grace_s
            if self._on_signal is not None:
                again = "; Ctrl-C again kills them" if new[0] == signal.SIGINT else ""
                name = signal.Signals(new[0]).name
                self._on_signal(f"{name}: the ranks finish this step, save and stop within {self._grace_s:g} s{again}")
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise TrainingError(
                f"The ranks have not saved within {self._grace_s:g} s (guards.stop_grace_s) and were killed.",
                "Continue from the last checkpoint with: pokevla resume RUN",
            )
