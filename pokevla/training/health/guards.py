"""Guards against bad steps: all ranks skip a step with a non-finite loss or gradient, or with a far too large loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pokevla.errors import TrainingError
from pokevla.recipe.running import GuardsConfig
from pokevla.training.health.pulse import Pulse
from pokevla.training.health.signals import StopFlag
from pokevla.training.health.spikes import SpikeWatch
from pokevla.training.health.stragglers import OwnWork


def poison_if_bad(loss: Tensor, limit: float = math.inf) -> Tensor:
    """Make every gradient NaN if the loss is not finite, or above `limit`.

    All ranks already share the norm of the reduced gradient. A bad loss on one rank makes that norm NaN everywhere, so
    no further communication is needed.
    """
    # A constant factor, not where(good, loss, loss * nan): the branch not taken would still backpropagate 0 * nan.
    value = loss.detach()
    return loss * torch.where(torch.isfinite(value) & (value.double() <= limit), 1.0, math.nan)


def worse(worst: Tensor, loss: Tensor) -> Tensor:
    """The larger of two losses. Non-finite values are ignored."""
    value = loss.detach().float()
    return torch.maximum(worst, torch.where(torch.isfinite(value), value, -math.inf))


class SkipCounter:
    """Counts skipped steps and ends the run when too many occur in a row."""

    def __init__(self, max_consecutive: int) -> None:
        self.max_consecutive = max_consecutive
        self.total = 0
        self.consecutive = 0

    def note(self, step: int, skipped: bool) -> None:
        """Record the outcome of a step.

        Raises:
            TrainingError: `max_consecutive` steps in a row were skipped.
        """
        self.consecutive = self.consecutive + 1 if skipped else 0
        self.total += skipped
        if self.consecutive >= self.max_consecutive:
            raise TrainingError(
                f"Loss or gradient was bad in {self.consecutive} steps in a row, the last was step {step}.",
                "Lower optim.lr, or inspect the data of these steps. Earlier checkpoints are kept.",
            )

    def refuse_bad_end(self, steps: int, window: int) -> None:
        """Refuse to call a training of `steps` steps finished if all of them were skipped, or the last `window`.

        Raises:
            TrainingError: its weights are those of the start, or have not followed the data at the end.
        """
        window = min(max(window, 2), steps)  # one skipped step at the end says nothing
        if self.total < steps and self.consecutive < window:
            return
        which = f"All {steps} steps" if self.total >= steps else f"The last {self.consecutive} steps"
        raise TrainingError(
            f"{which} of the training were skipped: its model is not exported.",
            "Inspect the data, or lower optim.lr. Earlier checkpoints are kept: `pokevla ckpt export RUN OUT --step N` "
            "exports one, `pokevla resume RUN steps=N` trains on.",
        )

    def state(self) -> dict[str, int]:
        """The counters to store in a checkpoint."""
        return {"total": self.total, "consecutive": self.consecutive}

    def restore(self, state: Mapping[str, int]) -> None:
        """Restore the counters from `state()`."""
        self.total, self.consecutive = state.get("total", 0), state.get("consecutive", 0)


@dataclass
class Guards:
    """The guards of one rank."""

    pulse: Pulse
    stop: StopFlag
    spikes: SpikeWatch
    skips: SkipCounter
    own_work: OwnWork


def build_guards(
    config: GuardsConfig, device: torch.device, stop: StopFlag | None = None, pulse: Pulse | None = None
) -> Guards:
    """Build the guards of a recipe. Without `stop` the job cannot be stopped by a signal; without `pulse` a hang goes
    undetected."""
    return Guards(
        pulse=pulse or Pulse(config.start_timeout_s, config.step_timeout_s),
        stop=stop or StopFlag(),
        spikes=SpikeWatch(config),
        skips=SkipCounter(config.max_consecutive_skips),
        own_work=OwnWork(device),
    )
