"""Runs in an environment with the `lerobot` package, not ours: what it reads of a dataset, and how fast.

python lerobot_reader.py check ROOT EXPECTED.npz     # prints JSON: frames that are right, and what is wrong
python lerobot_reader.py read ROOT                   # for each line on stdin reads all frames, prints CPU seconds
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # pyright: ignore[reportMissingImports]

IMAGES = "observation.images."


def opened(root: Path) -> Any:
    """The dataset, from the folder alone."""
    return LeRobotDataset("local/recordings", root=root)


def check(root: Path, expected: Path) -> dict[str, Any]:
    """Compare every frame with the arrays of `expected`: actions, proprio, instructions and, by view, mean colours."""
    dataset, wrong, right = opened(root), [], 0
    with np.load(expected, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    views = [name.removeprefix("mean_") for name in arrays if name.startswith("mean_")]
    for index in range(len(dataset)):
        item, problems = dataset[index], []
        if not np.array_equal(item["action"].numpy(), arrays["actions"][index].astype(item["action"].numpy().dtype)):
            problems.append("action")
        if not np.array_equal(item["observation.state"].numpy(), arrays["proprio"][index]):
            problems.append("observation.state")
        if item["task"] != str(arrays["instructions"][index]):
            problems.append("task")
        for view in views:  # channels first, in [0, 1]
            mean = item[IMAGES + view].numpy().mean(axis=(1, 2)) * 255
            if np.abs(mean - arrays[f"mean_{view}"][index]).max() > float(arrays["tolerance"]):
                problems.append(view)
        right += not problems
        wrong += [f"frame {index}: {', '.join(problems)}"] if problems else []
    return {
        "frames": len(dataset), "expected": len(arrays["actions"]), "right": right, "wrong": wrong[:5],
        "episodes": dataset.num_episodes, "statistics": sorted(dataset.meta.stats),
    }  # fmt: skip


def read(root: Path) -> None:
    """Read all frames once for each line on stdin, and answer with the CPU seconds of this process."""
    dataset = opened(root)
    print(json.dumps({"frames": len(dataset)}), flush=True)
    for _ in sys.stdin:
        begun = time.process_time()
        for index in range(len(dataset)):
            dataset[index]
        print(json.dumps({"seconds": time.process_time() - begun}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "check":
        print(json.dumps(check(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        read(Path(sys.argv[2]))
