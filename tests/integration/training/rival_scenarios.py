"""Runs on one rank: `python rival_scenarios.py OUT RECIPE...`. Each recipe is trained, resumed, exported and acts.

All share one process, because starting it costs more than training a tiny model. The results go to OUT/results.json.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pokevla.data.loader import build_loader
from pokevla.distributed.engine import join_ranks, leave_ranks
from pokevla.distributed.environment import read_rank
from pokevla.distributed.process import die_with_parent
from pokevla.policy.policy import Policy
from pokevla.recipe.load import load_recipe
from pokevla.recipe.schema import PosttrainRecipe
from pokevla.runs.checkpoints import checkpoint_folder
from pokevla.telemetry.manifest import write_manifest
from pokevla.training.building import build_state, build_trainer
from pokevla.training.loop import Trainer
from pokevla.training.restoring import RunState, restore
from pokevla.training.saving import Saver
from pokevla.training.tasks import Task, build_task, save_statistics
from pokevla.weights.export import export_checkpoint

SAVED = 6  # the step that is saved and resumed from


class Losses:
    """A callback that keeps the losses, and saves at the given steps."""

    def __init__(self, save: Any, at: tuple[int, ...]) -> None:
        self.values: list[float] = []
        self.save, self.at = save, at

    def after_step(self, result: Any) -> None:
        self.values.append(float(result.values["loss"]))
        if result.step in self.at:
            self.save(result)


def trained(trainer: Trainer) -> list[tuple[str, torch.nn.Parameter]]:
    model: Any = trainer.engine.module
    return sorted((name, value) for name, value in model.named_parameters() if value.requires_grad)


def fingerprint(trainer: Trainer) -> str:
    digest = hashlib.sha256()
    for name, value in trained(trainer):
        digest.update(name.encode() + value.detach().numpy().tobytes())
    return digest.hexdigest()


def train(recipe: PosttrainRecipe, task: Task, run_dir: Path, *, resume: bool) -> tuple[Trainer, RunState, list[float]]:
    trainer = build_trainer(recipe, task, INFO, DEVICE)
    state = build_state(recipe, task, INFO, trainer.guards)
    saver = Saver(trainer.engine, run_dir, recipe.checkpoint, state.checkpoint_info)
    start = restore(trainer.engine, state, run_dir, INFO, DEVICE).step if resume else 0
    losses = Losses(lambda result: saver.save(result, wait=True), () if resume else (SAVED,))
    sampled = {"rank": 0, "world_size": 1, "start_position": start * recipe.batch.global_}
    with build_loader(recipe, task.mixture, task.samples, **sampled) as loader:
        trainer.run(loader, start, [losses])
    if resume:
        assert start == SAVED
    return trainer, state, losses.values


def follow(path: Path) -> dict[str, Any]:
    """Train, resume from the middle, export the checkpoint of the middle, act."""
    recipe = load_recipe(path).recipe
    assert isinstance(recipe, PosttrainRecipe)
    run_dir = OUT / recipe.name
    run_dir.mkdir()
    write_manifest(run_dir)
    task = build_task(recipe, INFO)
    save_statistics(task.mixture, run_dir)
    trainer, state, losses = train(recipe, task, run_dir, resume=False)
    resumed, _, rest = train(recipe, build_task(recipe, INFO), run_dir, resume=True)

    folder, info = checkpoint_folder(run_dir, SAVED), state.at(SAVED, SAVED * recipe.batch.global_)
    export_checkpoint(run_dir, recipe, folder, info, OUT / f"{recipe.name}-export")
    policy = Policy.from_pretrained(OUT / f"{recipe.name}-export", "cpu")
    images = np.random.default_rng(0).integers(0, 255, (3, 2, 64, 64, 3), np.uint8)
    proprio = np.random.default_rng(1).uniform(-1, 1, (3, 8)).astype(np.float32)
    together = policy.act(images, proprio, ["Follow the square"] * 3)
    alone = policy.act(images[:1], proprio[:1], ["Follow the square"])
    return {
        "losses": losses,
        "resumed_losses": rest,
        "fingerprints": [fingerprint(trainer), fingerprint(resumed)],
        "shape": list(together.shape),
        "finite": bool(np.isfinite(together).all()),
        "batch_difference": float(np.abs(together[:1] - alone).max()),
        "head": type(policy.model.action_head).__name__,
        "sees_proprio": float(np.abs(policy.act(images, proprio + 0.5, ["Follow the square"] * 3) - together).max()),
        "trained": sum(value.numel() for _, value in trained(trainer)),
    }


if __name__ == "__main__":
    die_with_parent()
    torch.set_num_threads(1)
    OUT = Path(sys.argv[1])
    INFO = read_rank()
    DEVICE = join_ranks(INFO)
    results: dict[str, Any] = {}
    for file in map(Path, sys.argv[2:]):
        results[file.stem] = follow(file)
        (OUT / "results.json").write_text(json.dumps(results, indent=1))
    leave_ranks()
