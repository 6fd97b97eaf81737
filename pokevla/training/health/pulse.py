"""The current phase of a rank and its time limit. The loop writes it, the watchdog's thread reads it. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

COLLECTIVE_MARGIN_S = 60.0
"""Seconds added to a phase's limit to get the timeout of collectives. The watchdog fires first because its report is
more detailed."""


class Pulse:
    """The current phase of one rank and its time limit.

    with pulse.phase("data"):
        batch = next(loader)

    Until the first step is done, and within patient phases (a save, a validation), a phase may last `start_timeout_s`;
    otherwise `step_timeout_s`.
    """

    def __init__(self, start_timeout_s: float, step_timeout_s: float) -> None:
        self.step = 0
        """Number of completed steps."""
        self.name = "start"
        """Name of the current phase."""
        self.progress = 0
        """Number of phase changes so far. All ranks pass through the same phases, so the rank with the lowest count is
        behind."""
        self.since = time.monotonic()
        """When the current phase started."""
        self.limit_s = start_timeout_s
        """Time limit of the current phase."""
        self.start_timeout_s, self.step_timeout_s = start_timeout_s, step_timeout_s
        self._set_collective_timeout: Callable[[float], None] = lambda _timeout_s: None

    def govern(self, set_collective_timeout: Callable[[float], None]) -> None:
        """Set the timeout of collectives, now and whenever the phase limit changes."""
        self._set_collective_timeout = set_collective_timeout
        set_collective_timeout(self.limit_s + COLLECTIVE_MARGIN_S)

    @contextmanager
    def phase(self, name: str, *, patient: bool = False) -> Iterator[None]:
        """Enter phase `name` for the duration of the block."""
        outer, outer_limit_s = self.name, self.limit_s
        self._enter(name, self.start_timeout_s if patient else self.limit_s)
        try:
            yield
        finally:
            self._enter(outer, outer_limit_s)

    def enter(self, name: str) -> None:
        """Enter phase `name` until the next change of phase."""
        self._enter(name, self.limit_s)

    def step_done(self, step: int) -> None:
        """Record that `step` steps are complete. After the first one the shorter `step_timeout_s` applies."""
        self.step = step
        self._enter("loop", self.step_timeout_s)

    def _enter(self, name: str, limit_s: float) -> None:
        self.name, self.since = name, time.monotonic()
        self.progress += 1
        if limit_s != self.limit_s:
            self.limit_s = limit_s
            self._set_collective_timeout(limit_s + COLLECTIVE_MARGIN_S)
