"""Builds the trainer and its callbacks from a recipe."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from pokevla.distributed.engine import initialise_engine
from pokevla.distributed.environment import RankInfo
from pokevla.embodiment.libero import LIBERO
from pokevla.recipe.deepspeed_config import deepspeed_config
from pokevla.recipe.derive import derive_batch, total_steps, warmup_steps
from pokevla.recipe.schema import TrainRecipe
from pokevla.telemetry.jsonl import EventLog
from pokevla.telemetry.writers import MetricWriter
from pokevla.training.callbacks import Callback, MetricLog, StepGuard, StepResult, StopWhenAsked
from pokevla.training.health.damage import DamageReport
from pokevla.training.health.guards import Guards, build_guards
from pokevla.training.health.stragglers import build_straggler_report
from pokevla.training.loop import Trainer
from pokevla.training.measuring import build_loss_norms, build_meter
from pokevla.training.optimizer import build_optimizer, rate_factor
from pokevla.training.restoring import RunState, build_identity
from pokevla.training.saving import HealthWatch, Saver, SaveWhenDue
from pokevla.training.tasks import Task
from pokevla.training.validation import Validation

logger = logging.getLogger(__name__)


def build_trainer(
    recipe: TrainRecipe, task: Task, info: RankInfo, device: torch.device, guards: Guards | None = None
) -> Trainer:
    """Build optimizer and engine around the task's objective. Called by all ranks.

    Without `guards`, the recipe's guards are used, with no stop flag.

    Raises:
        RecipeError: the global batch is not a multiple of micro-batch times ranks.
    """
    optim, steps = recipe.optim, total_steps(recipe, task.mixture.sizes)
    optimizer = build_optimizer(task.objective, optim)
    if recipe.zero.stage == 3 and recipe.log.grad_norms_every_steps > 0:
        logger.warning("gradient norms per loss are not measured with ZeRO stage 3")
    config = deepspeed_config(recipe, derive_batch(recipe.batch, info.world_size))
    factor = rate_factor(steps, warmup_steps(recipe, steps), optim.schedule, optim.final_fraction)
    return Trainer(
        engine=initialise_engine(task.objective, optimizer, config),
        optimizer=optimizer,
        device=device,
        guards=guards or build_guards(recipe.guards, device),
        meter=build_meter(recipe, task.mixture.embodiment or LIBERO, info, device),
        seed=recipe.seed,
        steps=steps,
        rate=lambda step: optim.lr * factor(step),
        max_grad_norm=optim.max_grad_norm,
        loss_norms=build_loss_norms(recipe, task.objective),
    )


def build_state(recipe: TrainRecipe, task: Task, info: RankInfo, guards: Guards) -> RunState:
    """Build the part of a checkpoint that is not the engine's state."""
    identity = build_identity(recipe, info.world_size, task.frozen_hash, task.mixture, task.caches)
    return RunState(recipe, identity, guards)


def build_callbacks(
    recipe: TrainRecipe,
    task: Task,
    trainer: Trainer,
    state: RunState,
    run_dir: Path,
    writer: MetricWriter,
    events: EventLog | None,
) -> list[Callback]:
    """Build the callbacks in the order in which they run after each step. `events` is None except on rank 0."""
    guards, meter, every_steps = trainer.guards, trainer.meter, recipe.checkpoint.every_steps
    # A skipped spike needs the limit of the step before it, so its losses cannot be read later.
    deferred = trainer.device.type == "cuda" and recipe.guards.spike != "skip"
    guard = StepGuard(guards, events, deferred, lambda result: is_reading_due(recipe, result))
    stragglers = build_straggler_report(recipe.guards, guards.own_work, events)
    damage = DamageReport(meter, events) if recipe.data.damaged == "skip" else None
    log = MetricLog(
        writer, meter, guards.skips, state.metric_sums, recipe.log.every_steps, recipe.batch.global_, stragglers, damage
    )
    chain: list[Callback] = [guard, log]
    if task.validation:
        chain.append(
            Validation(trainer.engine, trainer.device, task.validation, every_steps, writer, meter, guards.pulse)
        )
    if events is not None:
        chain.append(HealthWatch(run_dir, recipe.checkpoint.healthy_after_steps))
    saver = Saver(trainer.engine, run_dir, recipe.checkpoint, state.checkpoint_info, writer, events)
    saving = SaveWhenDue(saver, writer, meter, guards.pulse)
    return [*chain, saving, StopWhenAsked(guard, saving, run_dir, events)]


def is_reading_due(recipe: TrainRecipe, result: StepResult) -> bool:
    """Whether what the ranks exchanged after this step is needed at once: for a line of metrics or a checkpoint."""
    intervals = (recipe.log.every_steps, recipe.checkpoint.every_steps)
    return result.step == 1 or result.is_last or any(result.step % interval == 0 for interval in intervals)
