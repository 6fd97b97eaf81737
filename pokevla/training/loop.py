"""The training loop, shared by both tasks.

A step consumes the positions [step * B, (step + 1) * B) of the global order. A skipped step consumes them too, and the
learning-rate schedule advances. So batch and learning rate of a step depend only on its number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from pokevla.distributed.engine import clip_or_drop_gradients, is_unwrapped
from pokevla.model.seeding import seed_dropout
from pokevla.telemetry.meters import StepMeter
from pokevla.training.callbacks import Callback, StepResult
from pokevla.training.feeding import DeviceFeed, Source
from pokevla.training.health.guards import Guards, poison_if_bad, worse
from pokevla.training.measuring import LossNorms
from pokevla.training.optimizer import applied_rate, apply_rate

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


@dataclass
class Trainer:
    """Runs the training steps on one rank. Built by `pokevla.training.building.build_trainer`."""

    engine: DeepSpeedEngine
    optimizer: torch.optim.Optimizer
    device: torch.device
    guards: Guards
    meter: StepMeter
    seed: int  # of dropout
    steps: int  # of the whole run
    rate: Callable[[int], float]  # step (from 0) -> learning rate
    max_grad_norm: float
    loss_norms: LossNorms

    def run(self, loader: Source, start: int, callbacks: Sequence[Callback]) -> None:
        """Train from step `start` to the last step."""
        feed = DeviceFeed(loader, self.device)
        for step in range(start, self.steps):
            apply_rate(self.optimizer, self.rate(step))
            result = self.step(feed, step)
            for callback in callbacks:
                callback.after_step(result)

    def step(self, feed: DeviceFeed, step: int) -> StepResult:
        """Run one optimizer step. `step` counts from 0."""
        pulse, accumulation = self.guards.pulse, self.engine.gradient_accumulation_steps()
        sums: dict[str, torch.Tensor] = {}
        grad_norm: float | None = None
        worst_loss = torch.tensor(-math.inf, device=self.device)
        first = self.fetch(feed)
        loss_norms = self.loss_norms(step, first)
        others = (self.fetch(feed) for _ in range(accumulation - 1))
        for number, batch in enumerate(chain([first], others), start=1):
            seed_dropout(self.seed, int(batch.positions[0]))
            with pulse.phase("forward"), self.guards.own_work:
                loss, values = self.engine(batch)
            with pulse.phase("backward"):
                self.engine.backward(poison_if_bad(loss, self.guards.spikes.skip_limit))
            sums = {name: sums.get(name, 0) + value / accumulation for name, value in values.items()}
            worst_loss = worse(worst_loss, loss)
            with pulse.phase("optimizer"):
                if number < accumulation:
                    self.engine.step()  # only counts the micro-batch; no optimizer step yet
                else:
                    grad_norm = guarded_step(self.engine, self.max_grad_norm)
        rate, is_last = applied_rate(self.optimizer), step + 1 == self.steps
        return StepResult(step + 1, feed.position, is_last, sums, rate, grad_norm, loss_norms, worst_loss)

    def fetch(self, feed: DeviceFeed) -> Any:
        """The next micro-batch, on this rank's device. On a GPU its copy may not be done yet."""
        with self.guards.pulse.phase("data"), self.guards.own_work, self.meter.waiting():
            return next(feed)


def guarded_step(engine: DeepSpeedEngine, max_grad_norm: float) -> float | None:
    """Apply the optimizer at the accumulation boundary, unless the gradient is not finite.

    A skipped step changes neither weights nor optimizer state. DeepSpeed's optimizer wrappers ensure this for stages 1
    to 3 and for bf16; stage 0 in fp32 has no wrapper, so this function does it.

    Returns:
        The gradient's global norm before clipping, the same on all ranks; None if the step was skipped.
    """
    unwrapped = is_unwrapped(engine)
    norm = clip_or_drop_gradients(engine, max_grad_norm) if unwrapped else None
    engine.step()
    if not unwrapped:
        reported = engine.get_global_grad_norm()
        norm = float(reported) if engine.was_step_applied() and reported is not None else math.nan
    return norm if norm is not None and math.isfinite(norm) else None
