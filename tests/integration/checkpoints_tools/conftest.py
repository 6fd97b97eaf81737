"""Runs with checkpoints of real engines on two ranks, made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pokevla.distributed.process import spawn_ranks

RECIPE = """\
kind: posttrain
name: toy
output: unused
data: {datasets: [{path: unused}], chunk_length: 8}
model: {preset: tiny}
trainable: {vision: lora, projector: full, language_model: lora}
lora: {rank: 4, alpha: 6}
loss: {segmentation: {weight: 0.0}, geometry: 0.0}
optim: {lr: 1.0e-2}
batch: {global: 4, micro: 2}
steps: 2
checkpoint: {every_steps: 1, keep_last: 2}
resources: {cpu_ranks: 2, threads_per_rank: 1}
"""
# Stage 3 in processes of its own: DeepSpeed patches torch.nn.functional.linear there for good.
GROUPS = (("0/fp32", "0/bf16", "1/fp32", "1/bf16", "2/fp32", "2/bf16"), ("3/fp32", "3/bf16"))


@pytest.fixture(scope="session")
def engine_runs(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the runs `stage-precision`. Tests read them, and damage copies only."""
    out = tmp_path_factory.mktemp("engine_runs")
    recipe = out / "toy.yaml"
    recipe.write_text(RECIPE)
    script = repository / "tests/integration/checkpoints_tools/write_runs.py"
    for kinds in GROUPS:
        spawn_ranks(
            (str(script), str(recipe), str(out), *kinds),
            world_size=2,
            threads=1,
            log_dir=out / "logs",
            environment={**os.environ, "PYTHONPATH": str(repository)},
        )
    return out
