"""lerobot's way to batches of the same pictures: `LeRobotDataset` with torchvision's v2 transforms.

Without masks and cached features, for which lerobot has no field: it does less than our side.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import default_collate

from benchmarks.readers.pictures import SIDE, picture
from pokevla.embodiment.libero import LIBERO

CHUNK = 8
FRAMES = 24


def lerobot_batches(folder: Path, size: int, micro: int) -> Callable[[], Any]:
    """A function that makes a batch of an episode's frames in random order. ImportError: lerobot is not installed.

    lerobot records the episode, as images, which it decodes faster than frames of videos.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    module: Any = importlib.import_module("lerobot.datasets.lerobot_dataset")
    v2: Any = importlib.import_module("torchvision.transforms.v2")
    images = {f"observation.images.{view}": (SIDE, SIDE, 3) for view in LIBERO.views}
    vectors = {"observation.state": (LIBERO.proprio_width,), "action": (LIBERO.action_width,)}
    features: dict[str, Any] = {
        name: {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]}
        for name, shape in images.items()
    }
    features |= {name: {"dtype": "float32", "shape": shape, "names": None} for name, shape in vectors.items()}
    fps = round(LIBERO.control_rate_hz)
    rng = np.random.default_rng(0)
    dataset = module.LeRobotDataset.create("benchmark/pictures", fps, features, root=folder, use_videos=False)
    for _ in range(FRAMES):
        frame: dict[str, Any] = {name: picture(rng)[0] for name in images}
        frame |= {name: np.zeros(shape, dtype=np.float32) for name, shape in vectors.items()}
        dataset.add_frame({**frame, "task": "pick up the bowl"})
    dataset.save_episode()
    dataset.finalize()
    transforms = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.9, 0.9), ratio=(1.0, 1.0), antialias=True),
            v2.ColorJitter(0.2, 0.2, 0.2, 0.05),
        ]
    )
    opened = module.LeRobotDataset(
        "benchmark/pictures",
        root=folder,
        image_transforms=transforms,
        delta_timestamps={"action": [step / fps for step in range(CHUNK)]},
    )
    return lambda: default_collate([opened[int(row)] for row in rng.integers(0, FRAMES - CHUNK, micro)])
