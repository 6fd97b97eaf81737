"""Recent speed of something countable, and when it will be done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from pokevla.telemetry.figures import duration

WINDOW = 20
"""Latest updates that speed and time left follow from."""


class TimeLeft:
    """Estimates when something countable will be done, at its recent speed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque(maxlen=WINDOW)

    def after(self, done: int, total: int | None) -> str:
        """`ETA 3 min 20 s` once `done` of `total` are done; empty at the first call and where there is no answer.

        A smaller `done` than before begins something new.
        """
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((self._clock(), done))
        (start_s, first), (end_s, last) = self._seen[0], self._seen[-1]
        if total is None or last <= first or done >= total:
            return ""
        return f"ETA {duration((total - done) * (end_s - start_s) / (last - first))}"

    def speed(self, unit: str) -> str:
        """`4.2 samples/s`; empty before there is a speed, or for an empty `unit`."""
        return "" if not unit or self.per_s is None else f"{self.per_s:.3g} {unit}/s"

    @property
    def per_s(self) -> float | None:
        """Recent speed; None before there is one."""
        if not self._seen or self._seen[-1][1] <= self._seen[0][1] or self._seen[-1][0] <= self._seen[0][0]:
            return None
        (start_s, first), (end_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end_s - start_s)
