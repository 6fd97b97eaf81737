"""Demonstrations of an arm that follows a square: enough to train on, written in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from toy_run import picture_with_square

from pokevla.data.sources.episodes import EPISODE_SCHEMA, SAMPLE_SCHEMA
from pokevla.data.sources.images import encode_jpeg, encode_mask
from pokevla.data.statistics import compute_statistics
from pokevla.data.writer import DatasetWriter, encode_json
from pokevla.embodiment.libero import LIBERO

FRAMES = 16
"""Frames of an episode."""


def write_demonstrations(out: Path, episodes: int, seed: int = 0) -> Path:
    """Write a robot dataset of LIBERO's embodiment, all of split `train`."""
    rng = np.random.default_rng(seed)
    all_actions, all_proprio = [], []
    with DatasetWriter(
        out, group="toy", samples=SAMPLE_SCHEMA, episodes=EPISODE_SCHEMA, embodiment=LIBERO, shard_samples=64
    ) as writer:
        for episode in range(episodes):
            shared = {
                "episode": episode,
                "split": "train",
                "suite": "toy",
                "task": "follow",
                "task_index": 0,
                "instruction": "Follow the square",
            }
            actions = rng.uniform(-1, 1, (FRAMES, LIBERO.action_width))
            actions[:, -1] = np.where(np.arange(FRAMES) < FRAMES // 2, -1.0, 1.0)  # the gripper
            proprio = rng.uniform(-1, 1, (FRAMES, LIBERO.proprio_width)).astype(np.float32)
            all_actions.append(actions)
            all_proprio.append(proprio)
            for frame in range(FRAMES):
                image, mask, _ = picture_with_square(rng)
                key = f"toy-t00-e{episode:04d}-f{frame:04d}"
                row = {**shared, "frame": frame, "proprio": proprio[frame].tolist()}
                members = {f"{view}.jpg": encode_jpeg(image, 95) for view in LIBERO.views}
                members |= {f"{view}.mask.png": encode_mask(mask) for view in LIBERO.views}
                writer.add_sample(key, {**members, "json": encode_json({"key": key, **row})}, row)
            sequences = {"actions": actions.tolist(), "executed_actions": actions.tolist(), "proprio": proprio.tolist()}
            writer.add_episode(
                {**shared, **sequences, "length": FRAMES, "init_state_index": episode, "target_shift": None}
            )
        statistics = compute_statistics(all_actions, all_proprio, LIBERO).to_dict()
        return writer.finish({"statistics": statistics, "sources": [], "made_by": {}})
