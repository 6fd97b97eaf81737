"""Run directories as the training leaves them, written by hand where writing them takes a training."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pokevla.files.checksums import measure_file
from pokevla.runs.checkpoints import CheckpointInfo, checkpoint_folder, write_info

RECIPE = (
    "kind: pretrain\nname: {name}\ndata: {{datasets: [{{path: d}}]}}\noptim: {{lr: {lr}}}\n"
    "batch: {{global: 32, micro: 16}}\nsteps: {steps}\n"
)
START_S = 1_790_000_000.0
"""When the runs of these tests began, seconds since 1970."""


def iso(seconds: float) -> str:
    """A time as the logs write it, `seconds` after the start."""
    return datetime.fromtimestamp(START_S + seconds, UTC).isoformat(timespec="seconds")


def make_run(folder: Path, steps: int = 100, lr: float = 1e-3, **manifest: Any) -> Path:
    """A run that has not been started."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(name=folder.name, lr=lr, steps=steps))
    start = {"time": iso(0), "host": "node1", "argv": ["pokevla", "train", "x.yaml"], "cwd": "d", "slurm": {}}
    content = {"commit": "0123456789abcdef", "dirty": False, "world_size": 2, "start": start, "restarts": []}
    (folder / "manifest.json").write_text(json.dumps(content | manifest))
    return folder


def append(path: Path, *rows: dict[str, Any]) -> None:
    """Add JSON lines."""
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def train_line(step: int, seconds: float, **values: Any) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    figures = {
        "loss": 2.0 - step / 100, "loss/action": 1.0 - step / 200, "lr": 1e-3, "grad_norm": 1.5, "skipped": 0,
        "samples_per_s": 64.0, "data_wait_share": 0.03, "step_s": 0.5, "rss_gib": 1.2, "tflops_per_rank": 0.004,
    }  # fmt: skip
    return {"step": step, "position": 32 * step, **figures, **values, "time": iso(seconds)}


def event(name: str, seconds: float, **fields: Any) -> dict[str, Any]:
    """A line of events.jsonl."""
    return {"time": iso(seconds), "event": name, **fields}


def save(run_dir: Path, step: int, content: bytes = b"weights") -> Path:
    """A complete checkpoint."""
    folder = checkpoint_folder(run_dir, step)
    (folder / "state").mkdir(parents=True)
    (folder / "state" / "a.pt").write_bytes(content)
    info = CheckpointInfo(step, 32 * step, 2, 2, "fp32", "r", "f", files=(measure_file(folder, "state/a.pt"),))
    write_info(folder, info)
    return folder


def finish(run_dir: Path) -> None:
    """Leave the exported model of a finished run."""
    (run_dir / "export").mkdir()
    (run_dir / "export" / "config.json").write_text("{}")
