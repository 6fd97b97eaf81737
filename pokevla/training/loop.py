"""The training loop: one for both tasks.

A step takes the positions [step * B, (step + 1) * B) of the global order, whatever happens: a step that the guard
skips has used them up, and the learning rate goes on. So batch and rate of a step depend on its number alone.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pokevla.checkpoint.store import find_on_all_ranks, load_checkpoint
from pokevla.data.batch import swap_images
from pokevla.data.dataset import mixture_fingerprints
from pokevla.data.loader import TrainLoader
from pokevla.distributed.collectives import barrier, mean_over_ranks, set_collective_timeout
from pokevla.distributed.engine import initialise_engine, join_ranks, leave_ranks
from pokevla.distributed.environment import RankInfo, rendezvous_timeout_s
from pokevla.recipe.deepspeed_config import deepspeed_config
from pokevla.recipe.derive import derive_batch, total_steps, warmup_steps
from pokevla.recipe.load import recipe_hash
from pokevla.recipe.schema import TrainRecipe
from pokevla.recipe.values import describe_changes, neutral_settings
from pokevla.runs.checkpoints import CheckpointInfo, refuse_misfit, remove_unfinished
from pokevla.runs.directory import EXPORT
from pokevla.telemetry.jsonl import EVENTS
from pokevla.telemetry.manifest import add_caches, add_restart
from pokevla.telemetry.meters import StepMeter
from pokevla.telemetry.writers import EventLog, MetricWriter
from pokevla.training.callbacks import (
    Callback,
    MetricLog,
    Periodic,
    StepGuard,
    StepResult,
    StopWhenAsked,
    leave_if_asked,
)
from pokevla.training.gradient_norms import loss_gradient_norms
from pokevla.training.health.guards import Guards, build_guards, guarded_step, poison_if_bad, worse
from pokevla.training.health.pulse import Pulse
from pokevla.training.health.signals import StopFlag
from pokevla.training.health.stragglers import build_straggler_report
from pokevla.training.measuring import build_meter, describe_run
from pokevla.training.metric_sums import MetricSums
from pokevla.training.optimizer import build_adamw
from pokevla.training.saving import HealthWatch, Saver, SaveWhenDue
from pokevla.training.schedule import applied_rate, apply_rate, rate_factor
from pokevla.training.seeding import seed_dropout
from pokevla.training.tasks import Task, build_task, save_statistics
from pokevla.weights.export import export_run

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

logger = logging.getLogger(__name__)


def train(recipe: TrainRecipe, run_dir: Path, info: RankInfo, stop: StopFlag, pulse: Pulse) -> None:
    """Train a run to its end, from its newest complete checkpoint or from step 0. Called by every rank.

    Raises:
        Requeued: `stop` was set on one of the ranks; all have saved.
        PokeVLAError: a named error; checkpoints made so far stay usable.
    """
    pulse.enter("rendezvous")
    device = join_ranks(info, rendezvous_timeout_s(recipe.guards.rendezvous_timeout_s))
    pulse.govern(set_collective_timeout)
    pulse.enter("building the model")
    task = build_task(recipe, info)
    trainer = build_trainer(recipe, task, run_dir, info, device, build_guards(recipe.guards, device, stop, pulse))
    pulse.govern(set_collective_timeout)  # DeepSpeed has made its own groups
    pulse.enter("restoring")
    start = trainer.restore()
    pulse.step = start.step
    pulse.enter("loop")
    with ExitStack() as stack:
        loader = stack.enter_context(task.make_loader(start.position))
        steps = total_steps(recipe, loader.sizes)
        if info.is_main:
            save_statistics(loader, run_dir)
        writer = stack.enter_context(closing(MetricWriter(run_dir, info.rank, resume_step=start.step)))
        describe_run(writer, recipe, run_dir, start.step)
        events = stack.enter_context(closing(EventLog(run_dir / EVENTS))) if info.is_main else None
        leave_if_asked(trainer.guards, device, start.step, start.position, run_dir, events)
        trainer.run(loader, start.step, steps, trainer.callbacks(writer, events))
        with pulse.phase("export", patient=True):
            if info.is_main:
                export_run(run_dir, run_dir / EXPORT)
                writer.finish()
                if events is not None:
                    events.add("finished", step=steps)
            barrier()
    leave_ranks()


@dataclass
class Trainer:
    """The parts of a run on one rank."""

    recipe: TrainRecipe
    task: Task
    run_dir: Path
    info: RankInfo
    device: torch.device
    guards: Guards
    engine: DeepSpeedEngine
    optimizer: torch.optim.Optimizer
    meter: StepMeter
    identity: CheckpointInfo  # of this job's checkpoints, at step 0
    metric_sums: MetricSums = field(default_factory=MetricSums)

    def __post_init__(self) -> None:
        self.saver = Saver(self.engine, self.run_dir, self.recipe.checkpoint, self.describe_state)

    # -------------------------------------------------------------------------------------------- the loop

    def run(self, loader: TrainLoader[Any], start: int, steps: int, callbacks: list[Callback]) -> None:
        """Train from step `start` to `steps`."""
        optim = self.recipe.optim
        factor = rate_factor(steps, warmup_steps(self.recipe, steps), optim.schedule, optim.final_fraction)
        for step in range(start, steps):
            apply_rate(self.optimizer, optim.lr * factor(step))
            result = self.step(loader, step, is_last=step + 1 == steps)
            for callback in callbacks:
                callback.after_step(result)

    def step(self, loader: TrainLoader[Any], step: int, *, is_last: bool) -> StepResult:
        """One optimizer step, the one after `step` others."""
        pulse, own_work = self.guards.pulse, self.guards.own_work
        accumulation = self.engine.gradient_accumulation_steps()
        sums: dict[str, torch.Tensor] = {}
        loss_norms: dict[str, float] = {}
        grad_norm: float | None = None
        worst_loss = torch.tensor(-math.inf, device=self.device)
        for micro_step in range(accumulation):
            with pulse.phase("data"), own_work, self.meter.waiting():
                batch = next(loader)
            batch = batch.to(self.device)
            seed = (self.recipe.seed, int(batch.positions[0]))
            if micro_step == 0 and self.measures_losses(step):
                seed_dropout(*seed)
                loss_norms = loss_gradient_norms(self.task.objective, batch)
            seed_dropout(*seed)
            with pulse.phase("forward"), own_work:
                loss, values = self.engine(batch)
            with pulse.phase("backward"):
                self.engine.backward(poison_if_bad(loss, self.guards.spikes.skip_limit))
            sums = {name: sums.get(name, 0) + value / accumulation for name, value in values.items()}
            worst_loss = worse(worst_loss, loss)
            with pulse.phase("optimizer"):
                if micro_step + 1 < accumulation:
                    self.engine.step()  # only counts the micro-batch
                else:
                    grad_norm = guarded_step(self.engine, self.recipe.optim.max_grad_norm)
        rate = applied_rate(self.optimizer)
        return StepResult(step + 1, loader.position, is_last, sums, rate, grad_norm, loss_norms, worst_loss)

    def measures_losses(self, step: int) -> bool:
        """Whether step `step` (from 0) measures each loss's gradient norm: the first, and every so many.

        Never with ZeRO stage 3: weights are gathered by the engine's forward pass only, and the measurement must not
        go through the engine.
        """
        every = self.recipe.log.grad_norms_every_steps
        return every > 0 and self.recipe.zero.stage < 3 and (step == 0 or (step + 1) % every == 0)

    # -------------------------------------------------------------------------------------------- around it

    def callbacks(self, writer: MetricWriter, events: EventLog | None) -> list[Callback]:
        """What happens after each step, in this order."""
        recipe, guards, every = self.recipe, self.guards, self.recipe.checkpoint.every_steps
        stragglers = build_straggler_report(recipe.guards, guards.own_work, events)
        guard = StepGuard(guards, events)
        chain: list[Callback] = [
            guard,
            MetricLog(
                writer,
                self.meter,
                guards.skips,
                self.metric_sums,
                recipe.log.every_steps,
                recipe.batch.global_,
                stragglers,
            ),
        ]
        if self.task.validation:
            judge = partial(self.validate, writer=writer)
            chain.append(Periodic("validate", every, judge, self.meter, guards.pulse))
        if self.info.is_main:
            chain.append(HealthWatch(self.run_dir, recipe.checkpoint.healthy_after_steps))
        self.saver.report_to(writer, events)
        saving = SaveWhenDue(self.saver, writer, self.meter, guards.pulse)
        return [*chain, saving, StopWhenAsked(guard, saving, self.run_dir, events)]

    def validate(self, result: StepResult, writer: MetricWriter) -> None:
        """Write the mean of each loss over fixed held-out batches, and again with the images of other samples:
        the difference is what looking is worth. Training does not see the outcome."""
        line = self.mean_losses("val", self.task.validation)
        line |= self.mean_losses("val_swapped", [swap_images(batch) for batch in self.task.validation])
        writer.write({"step": result.step, "position": result.position, **line})

    @torch.no_grad()
    def mean_losses(self, prefix: str, batches: Sequence[Any]) -> dict[str, float]:
        """Mean of each logged value over `batches` of all ranks, without dropout; {prefix/name: mean}."""
        self.engine.eval()
        logged = [self.engine(batch.to(self.device))[1] for batch in batches]
        self.engine.train()
        names = list(logged[0])
        sums = torch.stack([torch.stack([values[name].double() for name in names]) for values in logged]).mean(0)
        return {f"{prefix}/{name}": mean for name, mean in zip(names, mean_over_ranks(sums).tolist(), strict=True)}

    def save(self, result: StepResult) -> bool:
        """Save now, out of turn, and return when it is on the disk; errors as `Saver.save`."""
        return self.saver.save(result, wait=True)

    def restore(self) -> CheckpointInfo:
        """Load the newest complete checkpoint, if there is one; tell where training goes on.

        Raises:
            CheckpointError: all checkpoints are damaged, or the newest does not fit this job.
        """
        if self.info.is_main:
            remove_unfinished(self.run_dir)
        damaged: list[str] = []
        found = find_on_all_ranks(self.run_dir, self.info.is_main, damaged.append)
        info, changes = self.describe(0, 0), ""
        if found is not None:
            folder, info = found
            current = self.describe(info.step, info.position)
            refuse_misfit(folder, info, current)
            load_checkpoint(self.engine, folder, info)
            self.guards.spikes.restore(info.recent_losses)
            self.guards.skips.restore(info.skips)
            self.metric_sums.restore(info.metrics, self.info.rank, self.info.world_size, self.device)
            changes = describe_changes(_may_change(info), _may_change(current))
        if self.info.is_main:
            self.record_start(info, found is not None, damaged, changes)
        logger.info("training starts at step %d, position %d", info.step, info.position)
        return info

    def record_start(self, info: CheckpointInfo, resumed: bool, damaged: Sequence[str], changes: str) -> None:
        """Write down where training starts, what was passed over, and in one sentence every setting that is new."""
        said = {"changed": f"Resumed at step {info.step} with {changes}."} if changes else {}
        with closing(EventLog(self.run_dir / EVENTS)) as events:
            for message in damaged:
                logger.error("damaged checkpoint passed over: %s", message)
                events.add("damaged", message=message)
            events.add("resumed" if resumed else "started", step=info.step, position=info.position, **said)
        if changes:
            logger.warning("%s", said["changed"])
        if resumed:
            add_restart(self.run_dir, info.step, **said)
        else:
            add_caches(self.run_dir, self.task.caches)

    def describe(self, step: int, position: int) -> CheckpointInfo:
        """What a checkpoint of this job says about itself."""
        return dataclasses.replace(self.identity, step=step, position=position)

    def describe_state(self, step: int, position: int) -> CheckpointInfo:
        """The same with what guards and curves go on from. Called by all ranks."""
        return dataclasses.replace(
            self.describe(step, position),
            recent_losses=self.guards.spikes.state(),
            skips=self.guards.skips.state(),
            metrics=self.metric_sums.state(),
        )


def _may_change(info: CheckpointInfo) -> dict[str, Any]:
    return {**info.settings, "number of ranks": info.world_size}


def build_trainer(
    recipe: TrainRecipe,
    task: Task,
    run_dir: Path,
    info: RankInfo,
    device: torch.device,
    guards: Guards | None = None,
) -> Trainer:
    """Put optimizer and engine around a task. Without `guards`: those of the recipe, which nobody can stop."""
    guards = guards or build_guards(recipe.guards, device)
    optim = recipe.optim
    optimizer = build_adamw(task.objective, lr=optim.lr, weight_decay=optim.weight_decay, betas=optim.betas)
    if recipe.zero.stage == 3 and recipe.log.grad_norms_every_steps > 0:
        logger.warning("gradient norms per loss are not measured with ZeRO stage 3")
    config = deepspeed_config(recipe, derive_batch(recipe.batch, info.world_size))
    engine = initialise_engine(task.objective, optimizer, config)
    identity = CheckpointInfo(
        step=0,
        position=0,
        world_size=info.world_size,
        zero_stage=recipe.zero.stage,
        precision=recipe.precision,
        recipe_hash=recipe_hash(recipe),
        frozen_hash=task.frozen_hash,
        datasets=mixture_fingerprints(recipe.data),
        caches=task.caches,
        settings=neutral_settings(recipe),
    )
    meter = build_meter(recipe, info, device)
    return Trainer(recipe, task, run_dir, info, device, guards, engine, optimizer, meter, identity)
