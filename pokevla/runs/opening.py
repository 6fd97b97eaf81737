"""The first lines of a training: what starts, on what, with which data, and how to watch it. Without torch."""

from __future__ import annotations

import socket
from pathlib import Path

from pokevla.errors import PokeVLAError, command_line
from pokevla.recipe.derive import derive_batch
from pokevla.recipe.document import display_path
from pokevla.recipe.kinds import kind_of
from pokevla.recipe.planning.plan import count_samples, planned_steps
from pokevla.recipe.schema import TrainRecipe
from pokevla.runs.checkpoints import list_checkpoints
from pokevla.telemetry.gpu import gpu_names

LABEL_WIDTH = 8


def opening_lines(run_dir: Path, recipe: TrainRecipe, world_size: int) -> list[str]:
    """The lines, each with a label: run, device, ranks, model, data, steps, watch."""
    saved = list_checkpoints(run_dir)
    begin = f"continues after step {saved[-1][0]:,}" if saved else "begins at step 0"
    lines = {
        "run": f"{run_dir} ({kind_of(recipe).name}, {begin})",
        "device": _device(recipe),
        "ranks": _ranks(recipe, world_size),
        "model": _model(recipe),
        "data": _data(recipe),
        "steps": _steps(recipe),
        "watch": command_line("watch", run_dir),
    }
    return [f"{label:<{LABEL_WIDTH}}{text}" for label, text in lines.items()]


def _device(recipe: TrainRecipe) -> str:
    if recipe.resources.gpus_per_node == 0:
        return f"CPU of {socket.gethostname()}"
    names = gpu_names()
    kinds = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    return f"{kinds or 'GPU'} of {socket.gethostname()}"


def _ranks(recipe: TrainRecipe, world_size: int) -> str:
    batch = derive_batch(recipe.batch, world_size, begun=True)
    nodes = recipe.resources.nodes
    machines = f" on {nodes} machines" if nodes > 1 else ""
    return (
        f"{world_size}{machines}; {batch.global_batch} samples a step = {batch.micro} x {batch.accumulation} "
        f"accumulation x {world_size} rank{'s' if world_size > 1 else ''}; ZeRO stage {recipe.zero.stage}, "
        f"{recipe.precision}"
    )


def _model(recipe: TrainRecipe) -> str:
    start = "random weights" if recipe.model.vlm is None else display_path(recipe.model.vlm)
    sam = recipe.model.sam
    masks = "" if sam is None else f"; mask decoders from {display_path(sam)}"
    return f"preset {recipe.model.preset}, from {start}{masks}"


def _data(recipe: TrainRecipe) -> str:
    paths = ", ".join(display_path(path) for path in recipe.dataset_paths)
    try:
        samples = count_samples(recipe).training
    except PokeVLAError:  # the ranks name what is wrong when they open it
        samples = None
    return paths if samples is None else f"{paths}: {samples:,} samples to train on"


def _steps(recipe: TrainRecipe) -> str:
    steps = planned_steps(recipe)
    total = f"{recipe.epochs:g} epochs" if steps is None else f"{steps:,}"
    return f"{total}; a checkpoint every {recipe.checkpoint.every_steps:,}, metrics every {recipe.log.every_steps:,}"
