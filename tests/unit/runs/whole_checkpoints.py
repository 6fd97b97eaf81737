"""Complete checkpoints of one small file each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pokevla.files.checksums import measure_file
from pokevla.runs.checkpoints import STATE, CheckpointInfo, checkpoint_folder, write_info

INFO = CheckpointInfo(
    step=1,
    position=8,
    world_size=2,
    zero_stage=2,
    precision="fp32",
    recipe_hash="a" * 64,
    frozen_hash="b" * 16,
    datasets={"data/robot": "f1"},
    caches={"data/robot": "c1"},
    settings={"batch.micro": 2},
)


def put(run_dir: Path, step: int) -> Path:
    """A complete checkpoint with one file."""
    folder = checkpoint_folder(run_dir, step)
    (folder / STATE).mkdir(parents=True)
    (folder / STATE / "weights.pt").write_bytes(b"weights of step %d" % step)
    info = replace(INFO, step=step, position=8 * step, files=(measure_file(folder, f"{STATE}/weights.pt"),))
    write_info(folder, info)
    return folder
