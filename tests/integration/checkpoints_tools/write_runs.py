"""Runs on every rank: `python write_runs.py RECIPE OUT KIND...`, a KIND being `stage/precision`.

For each kind a run directory OUT/stage-precision with two checkpoints by a real engine, and beside them
`masters.safetensors`: the fp32 master weights as DeepSpeed's own interface gives them out while the engine is alive.
"""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pokevla.checkpoint.store import save_checkpoint
from pokevla.data.statistics import compute_statistics
from pokevla.distributed.engine import initialise_engine, join_ranks, leave_ranks
from pokevla.distributed.environment import RankInfo, read_rank
from pokevla.distributed.process import die_with_parent
from pokevla.embodiment.libero import LIBERO
from pokevla.files.texts import write_json
from pokevla.recipe.deepspeed_config import deepspeed_config
from pokevla.recipe.derive import derive_batch
from pokevla.recipe.dump import dump_recipe
from pokevla.recipe.load import load_recipe, recipe_hash
from pokevla.recipe.sections import OptimConfig
from pokevla.runs.checkpoints import CheckpointInfo
from pokevla.training.optimizer import build_optimizer
from pokevla.weights.base_model import build_base
from pokevla.weights.frozen_hash import frozen_hash
from pokevla.weights.parameter_groups import parameter_names_by_group


class Actions(nn.Module):
    """A model and a loss that reaches every trainable weight."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        size = self.model.config.vlm.image_size
        ids = torch.randint(1, 1000, (2, 5), generator=generator)
        images = torch.rand(2, 2, 3, size, size, generator=generator)
        output = self.model(images, ids, ids.bool(), torch.rand(2, 8, generator=generator), with_geometry=False)
        return (output.actions.float() - 0.5).square().mean()


def engine_config(recipe: Any, world_size: int) -> dict[str, Any]:
    config = deepspeed_config(recipe, derive_batch(recipe.batch, world_size))
    if recipe.zero.stage == 3:
        # As in a large model: weights are cut up, and a rank's share comes in several vectors.
        config["zero_optimization"] |= {"stage3_param_persistence_threshold": 500, "sub_group_size": 20_000}
    return config


def master_weights(engine: Any) -> dict[str, Tensor]:
    """fp32 master copies of all trained weights, from the living engine. Called by all ranks."""
    from deepspeed.utils import safe_get_full_fp32_param

    named = {name: value for name, value in engine.module.named_parameters() if value.requires_grad}
    if engine.zero_optimization_stage() > 0:
        return {name: safe_get_full_fp32_param(value).detach().clone() for name, value in named.items()}
    if engine.bfloat16_enabled():  # DeepSpeed's interface does not know stage 0
        names = parameter_names_by_group(engine.module)
        pairs = zip(chain(*names), chain(*engine.optimizer.fp32_groups), strict=True)
        return {name: value.detach().clone() for name, value in pairs}
    return {name: value.detach().clone() for name, value in named.items()}


def write_run(recipe_file: Path, out: Path, kind: str, info: RankInfo) -> None:
    stage, precision = kind.split("/")
    name = f"{stage}-{precision}"
    loaded = load_recipe(
        recipe_file, [f"name={name}", f"output={out}", f"zero.stage={stage}", f"precision={precision}"]
    )
    recipe: Any = loaded.recipe
    run_dir = out / name
    run_dir.mkdir(parents=True, exist_ok=True)
    if info.is_main:
        (run_dir / "recipe.yaml").write_text(dump_recipe(loaded))
        random = np.random.default_rng(0)
        statistics = compute_statistics([random.uniform(-1, 1, (16, 7))], [random.uniform(-1, 1, (16, 8))], LIBERO)
        write_json(run_dir / "statistics.json", statistics.to_dict(), sort_keys=True)
        write_json(run_dir / "trained_on.json", {"image_size": [128], "instructions": ["task"]})
    model = build_base(recipe, LIBERO)
    facts = CheckpointInfo(
        step=0,
        position=0,
        world_size=info.world_size,
        zero_stage=recipe.zero.stage,
        precision=precision,
        recipe_hash=recipe_hash(recipe),
        frozen_hash=frozen_hash(model),
    )
    objective = Actions(model)
    optimizer = build_optimizer(objective, OptimConfig(lr=0.01, weight_decay=0.1, betas=(0.9, 0.95)))
    engine = initialise_engine(objective, optimizer, engine_config(recipe, info.world_size))
    for step in (1, 2):
        engine.backward(engine(seed=10 * step + info.rank))
        engine.step()
        save_checkpoint(engine, run_dir, CheckpointInfo(**{**vars(facts), "step": step, "position": 4 * step}))
    masters = master_weights(engine)
    if info.is_main:
        save_file(masters, run_dir / "masters.safetensors")


if __name__ == "__main__":
    die_with_parent()
    torch.set_num_threads(1)
    INFO = read_rank()
    join_ranks(INFO)
    for name in sys.argv[3:]:
        write_run(Path(sys.argv[1]), Path(sys.argv[2]), name, INFO)
    leave_ranks()
