"""What happens around the loop, once per step: writing figures, judging held-out batches, saving."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from pokevla.distributed.collectives import mean_over_ranks
from pokevla.telemetry.meters import StepMeter
from pokevla.telemetry.writers import EventLog, MetricWriter
from pokevla.training.guards import SkipCounter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """One finished optimizer step."""

    step: int  # steps done so far, this one included
    position: int  # samples consumed globally so far
    is_last: bool
    values: dict[str, torch.Tensor]  # name -> scalar, this rank's mean over its micro-batches
    rate: float  # learning rate that was applied
    grad_norm: float | None  # before clipping; None if the step was skipped
    loss_norms: dict[str, float]  # gradient norm of each loss on the shared model, when measured


class Callback(Protocol):
    """Called after every step, on all ranks, in the order of the list."""

    def after_step(self, result: StepResult) -> None:
        """React to a finished step."""
        ...


@dataclass
class SkipGuard:
    """Notes skipped steps and ends a run that cannot go on."""

    counter: SkipCounter
    events: EventLog | None  # rank 0 only

    def after_step(self, result: StepResult) -> None:
        """Count; TrainingError when too many steps in a row were skipped."""
        skipped = result.grad_norm is None
        if skipped:
            logger.warning("step %d skipped: loss or gradient is not finite", result.step)
            if self.events is not None:
                self.events.add("skipped", step=result.step, position=result.position)
        self.counter.note(result.step, skipped)


@dataclass
class MetricLog:
    """Writes the mean of every value over the steps since the last line, over all ranks."""

    writer: MetricWriter
    meter: StepMeter
    counter: SkipCounter
    every_steps: int
    samples_per_step: int
    _sums: torch.Tensor | None = field(default=None, init=False)
    _norms: list[float] = field(default_factory=list, init=False)
    _loss_norms: dict[str, float] = field(default_factory=dict, init=False)
    _first: bool = field(default=True, init=False)

    def after_step(self, result: StepResult) -> None:
        """Add up; write a line every `every_steps`, after the first step and after the last."""
        self.meter.add(self.samples_per_step)
        self._loss_norms |= result.loss_norms
        if result.grad_norm is not None:  # a skipped step's values would make the mean meaningless
            values = torch.stack([value.double() for value in result.values.values()])
            self._sums = values if self._sums is None else self._sums + values
            self._norms.append(result.grad_norm)
        if not (self._first or result.is_last or result.step % self.every_steps == 0):
            return
        self._first = False
        line: dict[str, Any] = {"step": result.step, "position": result.position}
        if self._sums is not None:
            means = mean_over_ranks(self._sums / len(self._norms)).tolist()
            line |= dict(zip(result.values, means, strict=True))
            line["grad_norm"] = sum(self._norms) / len(self._norms)
        line |= {"lr": result.rate, "skipped": self.counter.total, **self._loss_norms, **self.meter.take()}
        self.writer.write(line)
        logger.info("%s", describe(line))
        self._sums, self._norms, self._loss_norms = None, [], {}


def describe(line: dict[str, Any]) -> str:
    """One line of metrics for a person."""
    parts = [f"step {line['step']}"]
    parts += [f"{name.removeprefix('loss/')} {value:.4g}" for name, value in line.items() if name.startswith("loss")]
    parts += [f"lr {line['lr']:.3g}", f"{line['samples_per_s']:.1f} samples/s"]
    return "  ".join(parts)


@dataclass
class Periodic:
    """Does something every few steps and after the last: saving, or judging held-out batches."""

    every_steps: int
    action: Callable[[StepResult], None]
    meter: StepMeter

    def after_step(self, result: StepResult) -> None:
        """Act when due. Its seconds do not count as training."""
        if result.is_last or result.step % self.every_steps == 0:
            self.action(result)
            self.meter.restart()
