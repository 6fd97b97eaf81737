"""A run directory with checkpoints of one small file each: enough for tools that look at files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pokevla.files.checksums import measure_file
from pokevla.runs.checkpoints import STATE, CheckpointInfo, checkpoint_folder, write_info

RECIPE = """\
kind: pretrain
name: toy
data: {datasets: [{path: unused}]}
model: {preset: tiny}
batch: {global: 8, micro: 2}
optim: {lr: 1.0e-3}
steps: 100
checkpoint: {keep_last: 2, keep_every_steps: 30}
"""
INFO = CheckpointInfo(
    step=0, position=0, world_size=2, zero_stage=2, precision="fp32", recipe_hash="a" * 64, frozen_hash="b" * 16
)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run without checkpoints."""
    path = tmp_path / "toy"
    path.mkdir()
    (path / "recipe.yaml").write_text(RECIPE)
    return path


@pytest.fixture
def put(run_dir: Path) -> Callable[[int], Path]:
    """Add a complete checkpoint of a step."""

    def put(step: int) -> Path:
        folder = checkpoint_folder(run_dir, step)
        (folder / STATE).mkdir(parents=True)
        for name in ("one.pt", "two.pt"):
            (folder / STATE / name).write_bytes(b"weights %s of step %d" % (name.encode(), step))
        files = tuple(measure_file(folder, f"{STATE}/{name}") for name in ("one.pt", "two.pt"))
        info = replace(INFO, step=step, position=8 * step, files=files)
        write_info(folder, info)
        return folder

    return put
