"""Where a rank is, and how long it may stay there. Written by the loop, read by the watchdog's thread. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

COLLECTIVE_MARGIN_S = 60.0
"""Seconds that a collective waits longer than a phase may last: the watchdog comes first, because it says more."""


class Pulse:
    """The present phase of one rank and its limit.

    with pulse.phase("data"):
        batch = next(loader)

    Until the first step is done, and within patient phases (a save, a validation), a phase may last `start_timeout_s`;
    otherwise `step_timeout_s`.
    """

    def __init__(self, start_timeout_s: float, step_timeout_s: float) -> None:
        self.step = 0
        """Steps done."""
        self.name = "start"
        """The present phase."""
        self.progress = 0
        """Phases begun and ended. All ranks go through the same ones, so the least progress is the rank behind."""
        self.since = time.monotonic()
        """When the present phase began."""
        self.limit_s = start_timeout_s
        """How long the present phase may last."""
        self.start_timeout_s, self.step_timeout_s = start_timeout_s, step_timeout_s
        self._set_collective_timeout: Callable[[float], None] = lambda _timeout_s: None

    def govern(self, set_collective_timeout: Callable[[float], None]) -> None:
        """Tell, now and whenever the limit changes, how long collectives may wait for other ranks."""
        self._set_collective_timeout = set_collective_timeout
        set_collective_timeout(self.limit_s + COLLECTIVE_MARGIN_S)

    @contextmanager
    def phase(self, name: str, *, patient: bool = False) -> Iterator[None]:
        """Be in phase `name` within the block."""
        outer, outer_limit_s = self.name, self.limit_s
        self._enter(name, self.start_timeout_s if patient else self.limit_s)
        try:
            yield
        finally:
            self._enter(outer, outer_limit_s)

    def enter(self, name: str) -> None:
        """Be in phase `name` from here on."""
        self._enter(name, self.limit_s)

    def step_done(self, step: int) -> None:
        """The loop has done `step` steps; from the first one on, phases are short."""
        self.step = step
        self._enter("loop", self.step_timeout_s)

    def _enter(self, name: str, limit_s: float) -> None:
        self.name, self.since = name, time.monotonic()
        self.progress += 1
        if limit_s != self.limit_s:
            self.limit_s = limit_s
            self._set_collective_timeout(limit_s + COLLECTIVE_MARGIN_S)
