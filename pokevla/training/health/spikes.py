"""Detects loss spikes: a loss far above the losses of the preceding steps.

Compares the largest micro-batch loss of a step, over all ranks, with the median of the history plus a number of robust
deviations. Both values are the same on all ranks. The history is part of the checkpoint, so a resumed run decides the
same way.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from statistics import median

from pokevla.recipe.running import GuardsConfig

SIGMA_OF_MAD = 1.4826
"""Ratio of standard deviation to median absolute deviation for a normal distribution."""
LEAST_DEVIATION = 0.01
"""Minimum deviation as a fraction of the median, so that rounding noise on a flat loss is not reported as a spike."""


class SpikeWatch:
    """Keeps the most recent losses and derives the limit for the next one."""

    def __init__(self, config: GuardsConfig) -> None:
        self.action = config.spike
        self._factor, self._window = config.spike_factor, config.spike_window
        self._history: deque[float] = deque(maxlen=config.spike_window)
        self.limit = math.inf
        """A loss above this is a spike. Infinite while there is too little history, or when spikes are off."""

    @property
    def skip_limit(self) -> float:
        """A step is skipped if a micro-batch loss exceeds this."""
        return self.limit if self.action == "skip" else math.inf

    def note(self, loss: float, applied: bool) -> bool:
        """Record the largest loss of a step and return whether it was a spike.

        The loss of a skipped step does not enter the history: the model was not updated with it. All others do, spikes
        included, so that a lasting change of level is not reported indefinitely.
        """
        spiked = self.action != "off" and loss > self.limit
        if applied and math.isfinite(loss):
            self._history.append(loss)
            self._set_limit()
        return spiked

    def state(self) -> tuple[float, ...]:
        """The loss history to store in a checkpoint."""
        return tuple(self._history)

    def restore(self, history: Iterable[float]) -> None:
        """Restore the history from `state()`."""
        self._history = deque(history, maxlen=self._window)
        self._set_limit()

    def _set_limit(self) -> None:
        if self.action == "off" or len(self._history) < self._window // 2:
            self.limit = math.inf
            return
        middle = median(self._history)
        deviation = SIGMA_OF_MAD * median(abs(loss - middle) for loss in self._history)
        self.limit = middle + self._factor * max(deviation, LEAST_DEVIATION * abs(middle))
