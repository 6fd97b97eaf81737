"""Loss spikes: is a step's loss far above those of the last steps?

The quantity is the step's largest micro-batch loss over all ranks, the limit a median plus so many robust deviations.
Both sides are the same on all ranks, and the history is stored in the checkpoint: a resumed run judges alike.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from statistics import median

from pokevla.recipe.running import GuardsConfig

SIGMA_OF_MAD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
LEAST_DEVIATION = 0.01
"""Smallest deviation as a share of the median: rounding is no spike where the loss stands still."""


class SpikeWatch:
    """Remembers the last losses and tells the limit for the next."""

    def __init__(self, config: GuardsConfig) -> None:
        self.action = config.spike
        self._factor, self._window = config.spike_factor, config.spike_window
        self._history: deque[float] = deque(maxlen=config.spike_window)
        self.limit = math.inf
        """A loss above this is a spike. Infinite while there is too little history, or when spikes are off."""

    @property
    def skip_limit(self) -> float:
        """A micro-batch loss above this makes the step be left out."""
        return self.limit if self.action == "skip" else math.inf

    def note(self, loss: float, applied: bool) -> bool:
        """Take in the largest loss of a step; return whether it was a spike.

        The loss of a step that was left out does not count as history: it says nothing about the model as it is. All
        others do, spikes too, so that a level that has changed for good is not reported for ever.
        """
        spiked = self.action != "off" and loss > self.limit
        if applied and math.isfinite(loss):
            self._history.append(loss)
            self._set_limit()
        return spiked

    def state(self) -> tuple[float, ...]:
        """What a checkpoint has to keep."""
        return tuple(self._history)

    def restore(self, history: Iterable[float]) -> None:
        """Go on from `state()`."""
        self._history = deque(history, maxlen=self._window)
        self._set_limit()

    def _set_limit(self) -> None:
        if self.action == "off" or len(self._history) < self._window // 2:
            self.limit = math.inf
            return
        middle = median(self._history)
        deviation = SIGMA_OF_MAD * median(abs(loss - middle) for loss in self._history)
        self.limit = middle + self._factor * max(deviation, LEAST_DEVIATION * abs(middle))
