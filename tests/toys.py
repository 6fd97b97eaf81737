"""Toy datasets and recipes of size `tiny`: a red square, and an arm that follows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.toy_run import picture_with_square, write_questions
from pokevla.data.sources.episodes import EPISODE_SCHEMA, SAMPLE_SCHEMA
from pokevla.data.sources.images import encode_jpeg, encode_mask
from pokevla.data.statistics import compute_statistics
from pokevla.data.writer import DatasetWriter, encode_json
from pokevla.embodiment.libero import LIBERO

LENGTH = 16  # frames of an episode


def write_dataset_info(folder: Path, **values: Any) -> None:
    """A `dataset.json` beside tables that a test has written itself: without a description, as LIBERO's began."""
    content = {"schema_version": 1, "kind": "robot", "fingerprint": "f", "num_samples": 0, "fields": [], "shards": {}}
    (folder / "dataset.json").write_text(json.dumps({**content, **values}))


def forget_checksums(root: Path) -> None:
    """Make a dataset as it was before `dataset.json` had checksums of itself and of the tables."""
    info = json.loads((root / "dataset.json").read_text())
    del info["xxh64"], info["tables"]
    (root / "dataset.json").write_text(json.dumps(info, indent=1))


def write_toy_dataset(out: Path, episodes: int = 6) -> Path:
    """Episodes of a coloured square that the arm follows; the last two are of split `val`."""
    rng = np.random.default_rng(0)
    all_actions, all_proprio = [], []
    with DatasetWriter(
        out, group="toy", samples=SAMPLE_SCHEMA, episodes=EPISODE_SCHEMA, embodiment=LIBERO, shard_samples=16
    ) as writer:
        for episode in range(episodes):
            shared = {
                "episode": episode,
                "split": "val" if episode >= episodes - 2 else "train",
                "suite": "toy",
                "task": "follow",
                "task_index": 0,
                "instruction": "Follow the square",
            }
            actions = rng.uniform(-1, 1, (LENGTH, LIBERO.action_width))
            actions[:, 6] = np.where(np.arange(LENGTH) < 8, -1.0, 1.0)
            proprio = rng.uniform(-1, 1, (LENGTH, LIBERO.proprio_width)).astype(np.float32)
            all_actions.append(actions)
            all_proprio.append(proprio)
            for frame in range(LENGTH):
                image, mask, _ = picture_with_square(rng)
                if frame % 5 == 0:
                    mask[:] = False  # sometimes nothing is visible
                key = f"toy-t00-e{episode:04d}-f{frame:04d}"
                row = {**shared, "frame": frame, "proprio": proprio[frame].tolist()}
                members = {f"{view}.jpg": encode_jpeg(image, 95) for view in LIBERO.views}
                members |= {f"{view}.mask.png": encode_mask(mask) for view in LIBERO.views}
                members["json"] = encode_json({"key": key, **row})
                writer.add_sample(key, members, row)
            writer.add_episode(
                {
                    **shared,
                    "length": LENGTH,
                    "init_state_index": episode,
                    "target_shift": None,
                    "actions": actions.tolist(),
                    "executed_actions": actions.tolist(),
                    "proprio": proprio.tolist(),
                }
            )
        return writer.finish(
            {"statistics": compute_statistics(all_actions, all_proprio, LIBERO).to_dict(), "sources": [], "made_by": {}}
        )


def write_toy_questions(out: Path, count: int = 40) -> Path:
    """Where is the square? The last eight pictures are of split `val`."""
    return write_questions(out, count, seed=1, num_val=8)


PRETRAIN_RECIPE = """\
kind: pretrain
name: {name}
output: {output}
data: {{datasets: [{{path: {dataset}}}], shuffle_window: 2}}
model: {{preset: tiny}}
trainable: {{vision: full, projector: full, language_model: full}}
optim: {{lr: 3.0e-3}}
batch: {{global: 8, micro: 2}}
epochs: 2
precision: bf16
zero: {{stage: 1}}
checkpoint: {{every_steps: 4}}
log: {{every_steps: 4, grad_norms_every_steps: 4}}
resources: {{cpu_ranks: 2, threads_per_rank: 1}}
"""

RECIPE = """\
kind: posttrain
name: {name}
output: {output}
seed: 7
data:
  datasets: [{{path: {dataset}}}]
  chunk_length: 8
  shuffle_window: 2
  augment: {{crop_area: 0.9}}
cache:
  root: {cache}
  sam: {{preset: tiny}}
  vggt: {{preset: tiny}}
model: {{preset: tiny}}
trainable: {{vision: lora, projector: full, language_model: lora}}
lora: {{rank: 4, alpha: 8, dropout: 0.1}}
optim: {{lr: 1.0e-3, warmup_fraction: 0.25}}
batch: {{global: 8, micro: 2}}
steps: 12
precision: fp32
zero: {{stage: 2}}
checkpoint: {{every_steps: 4, keep_last: 2, healthy_after_steps: 2}}
log: {{every_steps: 3, grad_norms_every_steps: 4}}
resources: {{cpu_ranks: 2, threads_per_rank: 1}}
"""
