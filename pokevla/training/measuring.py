"""What a run tells about itself beside its losses: how fast it computes, what it is."""

from __future__ import annotations

from pathlib import Path

import torch

from pokevla.distributed.environment import RankInfo
from pokevla.recipe.planning.compute import flops_per_sample
from pokevla.recipe.schema import TrainRecipe
from pokevla.recipe.values import flat_values
from pokevla.runs.directory import RECIPE
from pokevla.telemetry.gpu import start_gpu_sampler
from pokevla.telemetry.manifest import MANIFEST
from pokevla.telemetry.meters import Arithmetic, StepMeter
from pokevla.telemetry.writers import MetricWriter

TF32_SHARE = 0.5
"""fp32 matrix products run as TF32 at half the bf16 rate (A100: 156 of 312 TFLOPS); `pokevla plan` counts so too."""


def build_meter(recipe: TrainRecipe, info: RankInfo, device: torch.device) -> StepMeter:
    """The meter of one rank: with FLOP/s, and on rank 0 of a GPU job with what NVML tells."""
    gpu = None
    if device.type == "cuda" and info.is_main:
        gpu = start_gpu_sampler(str(torch.cuda.get_device_properties(device).uuid))
    return StepMeter(arithmetic=arithmetic(recipe, info.world_size, on_gpu=device.type == "cuda"), gpu=gpu)


def arithmetic(recipe: TrainRecipe, world_size: int, *, on_gpu: bool) -> Arithmetic:
    """The plan's FLOP count, without what activation checkpointing computes twice: that is no work of the model.

    On a CPU there is no peak: what its cores reach depends on clock, vector units and who else runs.
    """
    share = 1.0 if recipe.precision == "bf16" else TF32_SHARE
    model_only = recipe.model_copy(update={"activation_checkpointing": False})
    peak_tflops = recipe.resources.gpu_bf16_tflops * share if on_gpu else None
    return Arithmetic(flops_per_sample(model_only), world_size, peak_tflops)


def describe_run(writer: MetricWriter, recipe: TrainRecipe, run_dir: Path, step: int) -> None:
    """Show settings, recipe and manifest (with every restart so far) in TensorBoard. Called by every rank."""
    if writer.tensorboard is None:
        return
    texts = {name: (run_dir / name).read_text(encoding="utf-8") for name in (RECIPE, MANIFEST)}
    writer.describe(flat_values(recipe), texts, step)
