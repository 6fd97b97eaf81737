"""The training loop: one for both tasks.

A step takes the positions [step * B, (step + 1) * B) of the global order, whatever happens: a step that the guard
skips has used them up, and the learning rate goes on. So batch and rate of a step depend on its number alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pokevla.checkpoint.catalogue import CheckpointInfo, apply_retention, refuse_misfit
from pokevla.checkpoint.export import export_run
from pokevla.checkpoint.run import EXPORT
from pokevla.checkpoint.store import find_on_all_ranks, load_checkpoint, save_checkpoint
from pokevla.data.batch import swap_images
from pokevla.data.loader import TrainLoader
from pokevla.distributed.collectives import barrier, mean_over_ranks
from pokevla.distributed.engine import initialise_engine, join_ranks, leave_ranks
from pokevla.distributed.environment import RankInfo
from pokevla.recipe.deepspeed_config import deepspeed_config
from pokevla.recipe.derive import derive_batch, total_steps, warmup_steps
from pokevla.recipe.load import recipe_hash
from pokevla.recipe.schema import TrainRecipe
from pokevla.telemetry.manifest import add_restart
from pokevla.telemetry.meters import StepMeter
from pokevla.telemetry.writers import EventLog, MetricWriter
from pokevla.training.callbacks import Callback, MetricLog, Periodic, SkipGuard, StepResult
from pokevla.training.gradient_norms import loss_gradient_norms
from pokevla.training.guards import SkipCounter, guarded_step, poison_if_not_finite
from pokevla.training.measuring import build_meter, describe_run
from pokevla.training.optimizer import build_adamw
from pokevla.training.schedule import applied_rate, apply_rate, rate_factor
from pokevla.training.seeding import seed_dropout
from pokevla.training.tasks import Task, build_task, save_statistics

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

logger = logging.getLogger(__name__)


def train(recipe: TrainRecipe, run_dir: Path, info: RankInfo) -> None:
    """Train a run to its end, from its newest complete checkpoint or from step 0. Called by every rank.

    Raises:
        PokeVLAError: a named error; checkpoints made so far stay usable.
    """
    device = join_ranks(info)
    task = build_task(recipe, info)
    trainer = build_trainer(recipe, task, run_dir, info, device)
    start = trainer.restore()
    with ExitStack() as stack:
        loader = stack.enter_context(task.make_loader(start.position))
        steps = total_steps(recipe, loader.sizes)
        if info.is_main:
            save_statistics(loader, run_dir)
        writer = stack.enter_context(closing(MetricWriter(run_dir, info.rank, resume_step=start.step)))
        describe_run(writer, recipe, run_dir, start.step)
        events = stack.enter_context(closing(EventLog(run_dir / "events.jsonl"))) if info.is_main else None
        trainer.run(loader, start.step, steps, trainer.callbacks(writer, events))
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
    engine: DeepSpeedEngine
    optimizer: torch.optim.Optimizer
    meter: StepMeter
    recipe_hash: str

    # -------------------------------------------------------------------------------------------- the loop

    def run(self, loader: TrainLoader[Any], start: int, steps: int, callbacks: list[Callback]) -> None:
        """Train from step `start` to `steps`."""
        optim = self.recipe.optim
        factor = rate_factor(steps, warmup_steps(self.recipe, steps), optim.schedule, optim.final_fraction)
        for step in range(start, steps):
            apply_rate(self.optimizer, optim.lr * factor(step))
            values, loss_norms, grad_norm = self.step(loader, measure_losses=self.measures_losses(step))
            result = StepResult(
                step=step + 1,
                position=loader.position,
                is_last=step + 1 == steps,
                values=values,
                rate=applied_rate(self.optimizer),
                grad_norm=grad_norm,
                loss_norms=loss_norms,
            )
            for callback in callbacks:
                callback.after_step(result)

    def step(
        self, loader: TrainLoader[Any], *, measure_losses: bool = False
    ) -> tuple[dict[str, torch.Tensor], dict[str, float], float | None]:
        """One optimizer step: (mean of each logged value, gradient norm per loss, gradient norm or None if skipped)."""
        accumulation = self.engine.gradient_accumulation_steps()
        sums: dict[str, torch.Tensor] = {}
        loss_norms: dict[str, float] = {}
        grad_norm: float | None = None
        for micro_step in range(accumulation):
            with self.meter.waiting():
                batch = next(loader)
            batch = batch.to(self.device)
            seed = (self.recipe.seed, int(batch.positions[0]))
            if measure_losses and micro_step == 0:
                seed_dropout(*seed)
                loss_norms = loss_gradient_norms(self.task.objective, batch)
            seed_dropout(*seed)
            loss, values = self.engine(batch)
            self.engine.backward(poison_if_not_finite(loss))
            sums = {name: sums.get(name, 0) + value / accumulation for name, value in values.items()}
            if micro_step + 1 < accumulation:
                self.engine.step()  # only counts the micro-batch
            else:
                grad_norm = guarded_step(self.engine, self.recipe.optim.max_grad_norm)
        return sums, loss_norms, grad_norm

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
        recipe, every = self.recipe, self.recipe.checkpoint.every_steps
        counter = SkipCounter(recipe.max_consecutive_skips)
        chain: list[Callback] = [
            SkipGuard(counter, events),
            MetricLog(writer, self.meter, counter, recipe.log.every_steps, recipe.batch.global_),
        ]
        if self.task.validation:
            chain.append(Periodic(every, lambda result: self.validate(result, writer), self.meter))
        chain.append(Periodic(every, lambda result: self.save(result, events), self.meter))
        return chain

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

    def save(self, result: StepResult, events: EventLog | None) -> None:
        """Save a checkpoint, then delete those that are no longer wanted."""
        folder = save_checkpoint(self.engine, self.run_dir, self.describe(result.step, result.position))
        logger.info("saved %s", folder)
        if self.info.is_main:
            keep = self.recipe.checkpoint
            deleted = apply_retention(self.run_dir, keep.keep_last, keep.keep_every_steps)
            if events is not None:
                events.add("saved", step=result.step, position=result.position, deleted=deleted)

    def restore(self) -> CheckpointInfo:
        """Load the newest complete checkpoint, if there is one; tell where training goes on.

        Raises:
            CheckpointError: all checkpoints are damaged, or the newest does not fit this job.
        """
        damaged: list[str] = []
        found = find_on_all_ranks(self.run_dir, self.info.is_main, damaged.append)
        info = self.describe(0, 0)
        if found is not None:
            folder, info = found
            refuse_misfit(folder, info, self.describe(info.step, info.position))
            load_checkpoint(self.engine, folder)
        if self.info.is_main:
            with closing(EventLog(self.run_dir / "events.jsonl")) as events:
                for message in damaged:
                    logger.error("damaged checkpoint passed over: %s", message)
                    events.add("damaged", message=message)
                events.add("started" if found is None else "resumed", step=info.step, position=info.position)
            if found is not None:
                add_restart(self.run_dir, info.step)
        logger.info("training starts at step %d, position %d", info.step, info.position)
        return info

    def describe(self, step: int, position: int) -> CheckpointInfo:
        """What a checkpoint of this job says about itself."""
        return CheckpointInfo(
            step=step,
            position=position,
            world_size=self.info.world_size,
            zero_stage=self.recipe.zero.stage,
            precision=self.recipe.precision,
            recipe_hash=self.recipe_hash,
            frozen_hash=self.task.frozen_hash,
        )


def build_trainer(recipe: TrainRecipe, task: Task, run_dir: Path, info: RankInfo, device: torch.device) -> Trainer:
    """Put optimizer and engine around a task."""
    optim = recipe.optim
    optimizer = build_adamw(task.objective, lr=optim.lr, weight_decay=optim.weight_decay, betas=optim.betas)
    if recipe.zero.stage == 3 and recipe.log.grad_norms_every_steps > 0:
        logger.warning("gradient norms per loss are not measured with ZeRO stage 3")
    config = deepspeed_config(recipe, derive_batch(recipe.batch, info.world_size))
    engine = initialise_engine(task.objective, optimizer, config)
    meter = build_meter(recipe, info, device)
    return Trainer(recipe, task, run_dir, info, device, engine, optimizer, meter, recipe_hash(recipe))
