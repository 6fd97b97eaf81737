"""The FLOP count of the plan becomes FLOP/s and utilisation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pokevla.distributed.environment import RankInfo
from pokevla.embodiment.libero import LIBERO
from pokevla.recipe.load import load_recipe
from pokevla.recipe.planning.compute import flops_per_sample
from pokevla.recipe.planning.parts import model_cost
from pokevla.recipe.schema import PretrainRecipe
from pokevla.training.measuring import arithmetic, build_meter

RECIPE = """\
kind: pretrain
name: one
data: {{datasets: [{{path: d}}]}}
model: {{preset: tiny}}
optim: {{lr: 1.0e-3}}
batch: {{global: 4, micro: 2}}
steps: 2
precision: {precision}
activation_checkpointing: {checkpointing}
resources: {{gpu_bf16_tflops: 312}}
"""


def recipe(tmp_path: Path, precision: str = "bf16", checkpointing: str = "false") -> PretrainRecipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(precision=precision, checkpointing=checkpointing))
    loaded = load_recipe(path).recipe
    assert isinstance(loaded, PretrainRecipe)
    return loaded


@pytest.mark.parametrize(("precision", "peak"), [("bf16", 312.0), ("fp32", 156.0)])
def test_peak_is_that_of_the_arithmetic_that_runs(tmp_path: Path, precision: str, peak: float) -> None:
    assert arithmetic(recipe(tmp_path, precision), LIBERO, 2, on_gpu=True).peak_tflops == peak


def test_on_a_cpu_there_is_no_peak_and_no_utilisation(tmp_path: Path) -> None:
    meter = build_meter(recipe(tmp_path), LIBERO, RankInfo(0, 1, 0), torch.device("cpu"))
    meter.add(4)
    values = meter.take()
    assert values["tflops_per_rank"] > 0
    assert "mfu" not in values


def test_what_is_computed_twice_is_counted_once(tmp_path: Path) -> None:
    once, twice = recipe(tmp_path), recipe(tmp_path, checkpointing="true")
    assert model_cost(twice).recomputed > model_cost(once).recomputed == 0
    assert arithmetic(twice, LIBERO, 1, on_gpu=False).flops_per_sample == flops_per_sample(once)
