"""Callbacks that run after every step: agreement between ranks, guards, metrics, stopping."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch

from pokevla.data.loading.meter import LoadMeter, waiting_hint
from pokevla.distributed.collectives import max_over_ranks
from pokevla.errors import TrainingError
from pokevla.shards.reading import NO_READ
from pokevla.telemetry.jsonl import EventLog
from pokevla.telemetry.meters import StepMeter
from pokevla.telemetry.writers import MetricWriter
from pokevla.training.health.agreement import Exchange, start_exchange
from pokevla.training.health.damage import DamageReport
from pokevla.training.health.guards import Guards, SkipCounter
from pokevla.training.health.signals import reason_of, requeued
from pokevla.training.health.stragglers import StragglerReport
from pokevla.training.measuring import MetricSums

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """The result of one optimizer step on one rank."""

    step: int  # steps completed so far, including this one
    position: int  # samples consumed globally so far
    is_last: bool
    values: dict[str, torch.Tensor]  # name -> scalar, this rank's mean over its micro-batches
    rate: float  # learning rate applied in this step
    grad_norm: float | None  # before clipping; None if the step was skipped
    loss_norms: dict[str, float]  # gradient norm of each loss on the shared parameters; empty if not measured
    worst_loss: torch.Tensor  # scalar, the largest finite loss of this rank's micro-batches


class Callback(Protocol):
    """Called after every step, on all ranks, in the order of the list."""

    def after_step(self, result: StepResult) -> None:
        """React to a finished step."""
        ...


@dataclass
class StepGuard:
    """Runs first after every step. Checks that all ranks are at the same step and position, records skipped steps and
    loss spikes, and shares any request to stop.

    The exchange between the ranks begins after each step. With `deferred` its result is read one step later, so that
    the host need not wait until the device has finished the step; at the steps that `reads_at` names, and before a
    stop, it is read at once. So logs and checkpoints hold the same values in both cases.
    """

    guards: Guards
    events: EventLog | None  # rank 0 only
    deferred: bool = False
    reads_at: Callable[[StepResult], bool] = lambda _result: True
    stop_reason: str | None = field(default=None, init=False)
    """Why the job stops after this step, agreed by all ranks; None to continue."""
    _begun: deque[tuple[StepResult, Exchange]] = field(default_factory=deque, init=False)

    def after_step(self, result: StepResult) -> None:
        """Check the step, or the one before it.

        Raises (on all ranks):
            TrainingError: ranks disagree, too many steps in a row were skipped, or a spike occurred and the recipe says
                to stop on spikes.
        """
        with self.guards.pulse.phase("agree"):
            exchange = start_exchange(
                step=result.step,
                position=result.position,
                grad_norm=result.grad_norm,
                worst_loss=result.worst_loss,
                stop_code=self.guards.stop.code,
            )
            self._begun.append((result, exchange))
            waiting = 1 if self.deferred and not self.reads_at(result) else 0
            ready = []
            while len(self._begun) > waiting:
                earlier, exchange = self._begun.popleft()
                agreed = exchange.result()
                ready.append((earlier, agreed))
                self.stop_reason = reason_of(agreed.stop_code)
                waiting = 0 if self.stop_reason is not None else waiting  # all is read before the last save
        self.guards.pulse.step_done(result.step)
        for earlier, agreed in ready:
            self._judge(earlier, agreed.worst_loss)

    def _judge(self, result: StepResult, worst_loss: float) -> None:
        spikes, limit = self.guards.spikes, self.guards.spikes.limit
        skipped = result.grad_norm is None
        spiked = spikes.note(worst_loss, applied=not skipped)
        if spiked:
            logger.warning("step %d: a loss of %.4g is a spike (above %.4g)", result.step, worst_loss, limit)
            self._note("spike", result, loss=worst_loss, limit=limit)
        elif skipped:
            logger.warning("step %d skipped: loss or gradient is not finite", result.step)
        if skipped:
            spoiled = spiked and spikes.action == "skip"
            self._note("skipped", result, reason="spike" if spoiled else "not finite")
        self.guards.skips.note(result.step, skipped)
        if spiked and spikes.action == "stop":
            raise TrainingError(
                f"A loss of {worst_loss:.4g} in step {result.step} is a spike (above {limit:.4g}).",
                f"Inspect the data before position {result.position}, or set guards.spike=skip. Checkpoints are kept.",
            )

    def _note(self, event: str, result: StepResult, **fields: Any) -> None:
        if self.events is not None:
            self.events.add(event, step=result.step, position=result.position, **fields)


@dataclass
class MetricLog:
    """Writes the mean of every value, over all ranks and the steps since the previous line."""

    writer: MetricWriter
    meter: StepMeter
    counter: SkipCounter
    sums: MetricSums
    every_steps: int
    samples_per_step: int
    stragglers: StragglerReport
    damage: DamageReport | None = None  # None: a damaged sample ends the training
    _hinted: bool = field(default=False, init=False)  # said since waiting began

    def after_step(self, result: StepResult) -> None:
        """Accumulate the values. Write a line every `every_steps`, and after the first and last step of the run."""
        self.meter.add(self.samples_per_step)
        self.sums.add(result.values, result.grad_norm, result.loss_norms)
        if not (result.step == 1 or result.is_last or result.step % self.every_steps == 0):
            return
        steps = self.sums.steps
        line: dict[str, Any] = {"step": result.step, "position": result.position, **self.sums.take(result.values)}
        line |= {"lr": result.rate, "skipped": self.counter.total}
        line |= {**self.meter.take(), **self.stragglers.take(result.step, steps)}
        if self.damage is not None:
            line |= self.damage.take(result.step)
        loader = self.meter.loader
        slowest = loader.slowest if isinstance(loader, LoadMeter) else NO_READ
        if slowest.shard:
            line["data_slowest_shard"] = slowest.shard
        self.writer.write(line)
        hint = waiting_hint(line, slowest) if result.step > 1 else None  # the first step waits for the loader to start
        if hint is not None and not self._hinted:
            logger.warning("step %d: %s", result.step, hint)
        self._hinted = hint is not None
        logger.info("%s", log_line(line))


def log_line(line: dict[str, Any]) -> str:
    """Format one line of metrics for the text log."""
    parts = [f"step {line['step']}"]
    parts += [f"{name.removeprefix('loss/')} {value:.4g}" for name, value in line.items() if name.startswith("loss")]
    parts += [f"lr {line['lr']:.3g}", f"{line['samples_per_s']:.1f} samples/s"]
    return "  ".join(parts)


class LastSave(Protocol):
    """Saves before a job exits (pokevla.training.saving.SaveWhenDue)."""

    def before_leaving(self, result: StepResult) -> None:
        """Save the state after this step unless it is already saved. Returns once the checkpoint is complete."""
        ...


@dataclass
class StopWhenAsked:
    """Runs last after every step. If any rank was asked to stop, all ranks save and exit. After the final step of a run
    a request to stop has no effect."""

    guard: StepGuard
    saving: LastSave
    run_dir: Path
    events: EventLog | None  # rank 0 only

    def after_step(self, result: StepResult) -> None:
        """Raise Requeued on all ranks after a save, if a stop was requested."""
        if self.guard.stop_reason is None or result.is_last:
            return
        self.saving.before_leaving(result)
        stop_run(self.guard.stop_reason, result.step, result.position, self.run_dir, self.events)


def stop_if_requested(
    guards: Guards, device: torch.device, step: int, position: int, run_dir: Path, events: EventLog | None
) -> None:
    """End the job before the first step if a signal arrived during start-up. There is nothing to save.

    Called by all ranks; Requeued on all of them.
    """
    code = int(max_over_ranks(torch.tensor(guards.stop.code, device=device)))
    reason = reason_of(code)
    if reason is not None:
        stop_run(reason, step, position, run_dir, events)


def stop_run(reason: str, step: int, position: int, run_dir: Path, events: EventLog | None) -> NoReturn:
    """Log that the run stops with everything up to `step` saved, and raise Requeued."""
    logger.info("%s: stops at step %d", reason, step)
    if events is not None:
        events.add("stopped", reason=reason, step=step, position=position)
    raise requeued(reason, step, run_dir)
