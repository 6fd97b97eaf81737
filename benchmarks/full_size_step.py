"""Two full-size post-training steps with random weights on this machine's CPU: losses, seconds, and peak memory beside
the plan's.

    python benchmarks/full_size_step.py [--quick] [--json PATH]

The preset `pocket` in fp32 with LoRA of rank 64 on the whole VLM, one sample, all three losses: model, objective,
engine and step are those of a training run; the batch is random, with features of the published teachers' sizes. The
second step has the optimizer's state in memory, as all later ones. `--quick` does the same with the preset `mini`.

Memory is the process's largest resident set (VmHWM, which Linux resets on request) in each phase, minus the resident
set after all imports and the start of the engine's process group, just before the model is built. So that freed memory
is not counted, the program starts itself again with an allocator that gives it back. The plan's number is its sum for
one rank at ZeRO stage 0 without the fixed overhead, which stands for CUDA.

Needs 15 GiB for `pocket`. It refuses to start with less, and ends itself when another program takes the memory away.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from reporting import report, row
from synthetic_batches import robot_batch

from pokevla.data.batch import RobotBatch
from pokevla.distributed.engine import initialise_engine, join_ranks, leave_ranks
from pokevla.distributed.environment import RankInfo, choose_port
from pokevla.embodiment.libero import LIBERO
from pokevla.model.vla import PokeVLA
from pokevla.recipe.deepspeed_config import deepspeed_config
from pokevla.recipe.derive import derive_batch
from pokevla.recipe.planning.compute import GIB, OVERHEAD_GIB, memory_per_gpu
from pokevla.recipe.planning.parts import ModelCost, Sample, model_cost
from pokevla.recipe.planning.summary import default_recipe
from pokevla.recipe.schema import PosttrainRecipe
from pokevla.training.health.guards import build_guards
from pokevla.training.loop import Trainer
from pokevla.training.measuring import build_loss_norms, build_meter
from pokevla.training.objectives.objective import PosttrainObjective
from pokevla.training.optimizer import build_optimizer
from pokevla.weights.base_model import build_base, model_config

TEXT_TOKENS = 60
STEPS = 2
SPARE_GIB = 1.0
"""Available memory below which the benchmark ends itself."""
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
"""glibc raises these limits to 32 and 64 MiB as blocks are freed (man 3 mallopt), and then keeps most freed blocks:
4 GiB in a step of `pocket`."""


class OneBatch:
    """Stands for the loader: the same batch again and again."""

    def __init__(self, batch: RobotBatch) -> None:
        self.batch, self.position = batch, 0

    def __next__(self) -> RobotBatch:
        self.position += self.batch.size
        return self.batch


def recipe_of(preset: str) -> PosttrainRecipe:
    """Post-training as the paper's recipes do it, with one sample on one CPU rank."""
    values = default_recipe(preset).model_dump(by_alias=True)
    values |= {"precision": "fp32", "batch": {"global": 1, "micro": 1}, "steps": STEPS, "zero": {"stage": 0}}
    return PosttrainRecipe.model_validate(values | {"resources": {"cpu_ranks": 1}})


def start_again_with(variables: dict[str, str]) -> None:
    """Replace this process by the same program with other environment variables, unless it has them already."""
    if any(os.environ.get(name) != value for name, value in variables.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **variables})


def resident_gib() -> float:
    """Resident set of this process now."""
    return psutil.Process().memory_info().rss / GIB


def peak_gib() -> float:
    """Largest resident set since the last reset."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / GIB


def reset_peak() -> None:
    """Begin a new measurement of the largest resident set (man 5 proc, clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@contextmanager
def watched_memory() -> Iterator[None]:
    """End the process when the machine's available memory gets short: no other program should be killed for this."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            left = psutil.virtual_memory().available / GIB
            if left < SPARE_GIB:
                print(f"stopped: only {left:.1f} GiB of memory are left on this machine", file=sys.stderr, flush=True)
                os._exit(3)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def build_trainer(recipe: PosttrainRecipe, device: torch.device, info: RankInfo) -> Trainer:
    """As `pokevla.training.building.build_trainer`, without a dataset."""
    model = build_base(recipe, LIBERO)
    if not isinstance(model, PokeVLA):
        raise TypeError(f"the recipe builds a {type(model).__name__}")
    objective = PosttrainObjective(model, recipe.loss)
    optimizer = build_optimizer(objective, recipe.optim)
    return Trainer(
        engine=initialise_engine(objective, optimizer, deepspeed_config(recipe, derive_batch(recipe.batch, 1))),
        optimizer=optimizer,
        device=device,
        guards=build_guards(recipe.guards, device),
        meter=build_meter(recipe, LIBERO, info, device),
        seed=recipe.seed,
        steps=STEPS,
        rate=lambda _: recipe.optim.lr,
        max_grad_norm=recipe.optim.max_grad_norm,
        loss_norms=build_loss_norms(
            recipe.model_copy(update={"log": recipe.log.model_copy(update={"grad_norms_every_steps": 0})}), objective
        ),
    )


def measure(recipe: PosttrainRecipe, planned_gib: float, cost: ModelCost) -> list[dict[str, Any]]:
    """Train the steps and return the rows of the report."""
    info = RankInfo(0, 1, 0)
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(choose_port()))
    device = join_ranks(info)
    gc.collect()
    baseline = resident_gib()
    rows = [row("baseline", baseline, "GiB", "resident after imports; left out below")]
    reset_peak()
    started = time.perf_counter()
    trainer = build_trainer(recipe, device, info)
    config = model_config(recipe.model, recipe.data.chunk_length, LIBERO)
    loader = OneBatch(robot_batch(config, text_tokens=TEXT_TOKENS))
    rows.append(row("build/seconds", time.perf_counter() - started, "s"))
    rows.append(row("build/peak", peak_gib() - baseline, "GiB"))
    peaks = []
    for step in range(STEPS):
        reset_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        result = trainer.step(loader, step)  # pyright: ignore[reportArgumentType]
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        peaks.append(peak_gib() - baseline)
        name = f"step_{step + 1}"
        losses = {key: float(value) for key, value in result.values.items()}
        if not all(math.isfinite(value) for value in losses.values()) or result.grad_norm is None:
            raise SystemExit(f"{name}: a loss or the gradient is not finite: {losses}")
        rows += [row(f"{name}/{key}", value, "", "finite") for key, value in losses.items()]
        rows.append(row(f"{name}/grad_norm", result.grad_norm, "", "finite"))
        rows.append(row(f"{name}/seconds", seconds[0], "s", f"{seconds[1]:.1f} s of CPU time"))
        rows.append(row(f"{name}/flops", cost.flops / seconds[0] / 1e9, "GFLOP/s", "plan's operations over seconds"))
        rows.append(row(f"{name}/peak", peaks[-1], "GiB"))
    rows.append(row("peak_memory/plan", max(peaks), "GiB", f"plan: {planned_gib:.2f} GiB", max(peaks) / planned_gib))
    leave_ranks()
    return rows


def main() -> None:
    """Parse arguments, check the memory, measure, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the preset mini in place of pocket")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    start_again_with(ALLOCATOR)
    recipe = recipe_of("mini" if arguments.quick else "pocket")
    cost = model_cost(recipe, LIBERO, Sample(LIBERO.num_views, TEXT_TOKENS))
    memory = memory_per_gpu(recipe, 1, 0, cost)
    planned = memory.total - OVERHEAD_GIB
    available = psutil.virtual_memory().available / GIB
    if available < planned + SPARE_GIB + 1.0:
        raise SystemExit(f"{available:.1f} GiB of memory are available, the step needs about {planned + 1.0:.1f}.")
    for name in ("weights", "gradients", "optimizer", "activations"):
        print(f"plan: {name:<12}{getattr(memory, name):>8.2f} GiB")
    with watched_memory():
        report(measure(recipe, planned, cost), arguments.json)


if __name__ == "__main__":
    main()
