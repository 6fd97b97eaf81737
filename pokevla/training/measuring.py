"""Measurements of a run: metric sums, gradient norm of each loss, speed, and the settings shown in the sinks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pokevla.distributed.collectives import gather_objects, is_distributed, mean_over_ranks
from pokevla.distributed.environment import RankInfo
from pokevla.embodiment.description import Embodiment
from pokevla.errors import DataError
from pokevla.files.texts import read_text
from pokevla.model.seeding import seed_dropout
from pokevla.recipe.planning.compute import flops_per_sample
from pokevla.recipe.planning.parts import mean_images
from pokevla.recipe.planning.precision import PRECISIONS
from pokevla.recipe.schema import TrainRecipe
from pokevla.recipe.values import flat_values
from pokevla.runs.directory import RECIPE
from pokevla.telemetry.gpu import start_gpu_sampler
from pokevla.telemetry.manifest import MANIFEST
from pokevla.telemetry.meters import Arithmetic, StepMeter
from pokevla.telemetry.writers import MetricWriter
from pokevla.training.objectives.objective import Objective

logger = logging.getLogger(__name__)

LossNorms = Callable[[int, Any], dict[str, float]]
"""(step from 0, its first micro-batch) -> {"grad_norm/<loss>": norm}; empty for steps that are not measured."""


@dataclass
class MetricSums:
    """Sums of one rank since the last line of metrics. They are part of a checkpoint, so that a line written after a
    resume covers the same steps as without the interruption."""

    steps: int = 0
    sums: Tensor | None = None  # float64, one value per name; skipped steps are excluded
    grad_norms: list[float] = field(default_factory=list)  # of the same steps
    loss_grad_norms: dict[str, float] = field(default_factory=dict)  # the most recent measurement

    def add(self, values: Mapping[str, Tensor], grad_norm: float | None, loss_grad_norms: Mapping[str, float]) -> None:
        """Add a step's values. `grad_norm` is None for a skipped step, whose values are left out of the sums."""
        self.steps += 1
        self.loss_grad_norms |= loss_grad_norms
        if grad_norm is not None:
            stacked = torch.stack([value.double() for value in values.values()])
            self.sums = stacked if self.sums is None else self.sums + stacked
            self.grad_norms.append(grad_norm)

    def take(self, names: Mapping[str, Any]) -> dict[str, float]:
        """Return the means over steps and ranks by name, and reset the sums. Called by all ranks."""
        line: dict[str, float] = {}
        if self.sums is not None:
            means = mean_over_ranks(self.sums / len(self.grad_norms)).tolist()
            line = {**dict(zip(names, means, strict=True)), "grad_norm": sum(self.grad_norms) / len(self.grad_norms)}
        line |= self.loss_grad_norms
        self.steps, self.sums, self.grad_norms, self.loss_grad_norms = 0, None, [], {}
        return line

    def state(self) -> dict[str, Any]:
        """The sums of every rank as plain values, to store in a checkpoint. Called by all ranks."""
        sums = gather_objects(None if self.sums is None else self.sums.tolist())
        return {
            "steps": self.steps,
            "sums": sums if sums[0] is not None else [],
            "grad_norms": list(self.grad_norms),
            "loss_grad_norms": dict(self.loss_grad_norms),
        }

    def restore(self, state: Mapping[str, Any], rank: int, world_size: int, device: torch.device) -> None:
        """Restore the sums from `state()`. If the number of ranks has changed, each rank gets the mean over the old
        ranks."""
        if not state:  # a checkpoint of an earlier version, which did not store sums
            return
        self.steps = state["steps"]
        self.grad_norms, self.loss_grad_norms = list(state["grad_norms"]), dict(state["loss_grad_norms"])
        if state["sums"]:
            sums = torch.tensor(state["sums"], dtype=torch.float64, device=device)
            self.sums = sums[rank] if len(sums) == world_size else sums.mean(0)


def build_loss_norms(recipe: TrainRecipe, objective: Objective) -> LossNorms:
    """Measure the gradient norm of each loss, in step 0 and at the interval of the recipe.

    Not available with ZeRO stage 3: only the engine's forward pass gathers the weights, and the measurement bypasses
    the engine.
    """
    every_steps = recipe.log.grad_norms_every_steps
    if every_steps == 0 or recipe.zero.stage == 3:
        return lambda _step, _batch: {}

    def measure(step: int, batch: Any) -> dict[str, float]:
        if step > 0 and (step + 1) % every_steps:
            return {}
        seed_dropout(recipe.seed, int(batch.positions[0]))
        return loss_gradient_norms(objective, batch)

    return measure


def loss_gradient_norms(objective: Objective, batch: object) -> dict[str, float]:
    """Norm of each weighted loss's gradient on the shared parameters, over one micro-batch of every rank.

    Called by all ranks. Runs a separate forward pass outside the engine, and `torch.autograd.grad` instead of
    `backward`: no gradient is accumulated and no DeepSpeed hook runs, so training is unaffected (tested bit for bit).
    The cost is one forward pass, and one backward pass per loss.

    Returns:
        {"grad_norm/<loss>": norm}; empty when the VLM is frozen, since then no parameter is shared.
    """
    shared = objective.shared_parameters()
    if not shared:
        return {}
    weighted = objective.terms(batch).weighted  # pyright: ignore[reportArgumentType]
    norms: dict[str, float] = {}
    for index, (name, loss) in enumerate(weighted.items()):
        gradients = torch.autograd.grad(loss, shared, retain_graph=index + 1 < len(weighted), allow_unused=True)
        norms[f"grad_norm/{name}"] = _norm_of_mean([gradient for gradient in gradients if gradient is not None])
    return norms


def _norm_of_mean(gradients: list[Tensor]) -> float:
    """Norm of the gradient averaged over ranks. A loss reaches the same parameters on all ranks."""
    if not gradients:
        return 0.0
    flat = torch.cat([gradient.float().flatten() for gradient in gradients])
    if is_distributed():
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
    return float(flat.norm())


def build_meter(recipe: TrainRecipe, embodiment: Embodiment, info: RankInfo, device: torch.device) -> StepMeter:
    """Build the meter of one rank. It reports FLOP/s, and NVML readings on rank 0 of a GPU job."""
    gpu = None
    if device.type == "cuda" and info.is_main:
        gpu = start_gpu_sampler(str(torch.cuda.get_device_properties(device).uuid))
    return StepMeter(arithmetic=arithmetic(recipe, embodiment, info.world_size, on_gpu=device.type == "cuda"), gpu=gpu)


def arithmetic(recipe: TrainRecipe, embodiment: Embodiment, world_size: int, *, on_gpu: bool) -> Arithmetic:
    """The plan's FLOP count, which leaves out what activation checkpointing recomputes.

    A CPU has no peak value: what its cores reach depends on clock rate, vector units and other load.
    """
    peak_tflops = recipe.resources.gpu_bf16_tflops * PRECISIONS[recipe.precision].peak_share if on_gpu else None
    return Arithmetic(flops_per_sample(recipe, embodiment, mean_images(recipe)), world_size, peak_tflops)


def describe_run(writer: MetricWriter, recipe: TrainRecipe, run_dir: Path, step: int) -> None:
    """Write settings, recipe and manifest (with all restarts so far) to the sinks. Called by every rank."""
    if not writer.sinks:
        return
    texts: dict[str, str] = {}
    for name in (RECIPE, MANIFEST):
        try:
            texts[name] = read_text(run_dir / name)
        except DataError as error:  # shown to people only
            logger.warning("not shown with the metrics: %s", error)
    writer.describe(flat_values(recipe), texts, step)
