"""A data source: episodes of a robot that follows a red square."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pokevla.data.sources.episodes import EPISODE_SCHEMA, SAMPLE_SCHEMA
from pokevla.data.sources.images import encode_jpeg, encode_mask
from pokevla.data.statistics import compute_statistics
from pokevla.data.writer import DatasetWriter, encode_json
from pokevla.embodiment.table import get_embodiment
from pokevla.parts import DATA_SOURCES

LENGTH = 12


def convert_squares(out: Path, episodes: int = 4) -> None:
    """Write drawn episodes to a robot dataset; the last one is of split `val`."""
    rng, robot = np.random.default_rng(0), get_embodiment("two-arms")
    proprio = rng.uniform(-1, 1, (episodes, LENGTH, robot.proprio_width)).astype(np.float32)
    actions = rng.uniform(0, 1, (episodes, LENGTH, robot.action_width))
    tables = {"samples": SAMPLE_SCHEMA, "episodes": EPISODE_SCHEMA, "embodiment": robot}
    with DatasetWriter(out, group="toy", **tables) as writer:
        for episode in range(episodes):
            shared = {"episode": episode, "split": "val" if episode == episodes - 1 else "train", "suite": "toy",
                      "task": "follow", "task_index": 0, "instruction": "Follow the square"}  # fmt: skip
            for frame in range(LENGTH):
                image, mask = np.full((32, 32, 3), 90, np.uint8), np.zeros((32, 32), bool)
                image[frame : frame + 8, 8:16], mask[frame : frame + 8, 8:16] = (200, 40, 40), True
                row = {**shared, "frame": frame, "proprio": proprio[episode][frame].tolist()}
                key = f"toy-{episode:04d}-{frame:04d}"
                members = {f"{view}.jpg": encode_jpeg(image, 95) for view in robot.views}
                members |= {f"{view}.mask.png": encode_mask(mask) for view in robot.views}
                writer.add_sample(key, members | {"json": encode_json({"key": key, **row})}, row)
            done = {name: actions[episode].tolist() for name in ("actions", "executed_actions")}
            start = {"length": LENGTH, "init_state_index": 0, "target_shift": None}
            writer.add_episode({**shared, **start, **done, "proprio": proprio[episode].tolist()})
        writer.finish({"statistics": compute_statistics(actions, proprio, robot).to_dict()})


DATA_SOURCES["squares"] = convert_squares
