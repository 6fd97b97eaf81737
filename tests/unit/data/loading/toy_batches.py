"""Batches for tests of the loader's process, which opens them by the name of a function."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pokevla.data.batch import QuantisedFeatures, RobotBatch
from pokevla.data.loading.memory import Allocate
from pokevla.errors import DataError

FAILS_AT = 5


def make_robot_batch(positions: np.ndarray, allocate: Allocate, side: int = 8) -> RobotBatch:
    """A batch whose numbers are its positions; pictures and features are made in memory of `allocate`."""
    count = len(positions)
    pixels, grid = allocate((count, 1, 3, side, side), np.uint8), allocate((count, 1, 2, 4, 4), np.int8)
    pixels[:], grid[:] = positions.reshape(-1, 1, 1, 1, 1), positions.reshape(-1, 1, 1, 1, 1)
    long = int(positions[0]) % 7 + 1  # as texts are
    return RobotBatch(
        keys=[f"k{position}" for position in positions],
        positions=torch.from_numpy(positions),
        pixel_values=torch.from_numpy(pixels),
        input_ids=torch.full((count, long), int(positions[0])),
        attention_mask=torch.ones((count, long), dtype=torch.bool),
        proprio=torch.zeros((count, 0)),
        actions=torch.full((count, 2, 3), float(positions[0])),
        masks=None,
        crop_boxes=torch.zeros((count, 1, 4)),
        features={"sam": QuantisedFeatures(torch.from_numpy(grid), torch.ones((count, 1, 2, 1)), "int8_channel64")},
    )


def open_toy(kind: str) -> Callable[[np.ndarray, Allocate], Any]:
    """Batches of one kind: `good`, larger and larger (`growing`), or with a fault at position FAILS_AT."""
    if kind == "cannot open":
        raise DataError("The dataset is damaged.", "Convert it again.")

    def make(positions: np.ndarray, allocate: Allocate) -> RobotBatch:
        if FAILS_AT in positions:
            if kind == "named":
                raise DataError("shard is corrupted", "Make it again.")
            if kind == "bug":
                raise ZeroDivisionError("toy")
            if kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
        return make_robot_batch(positions, allocate, int(positions[0]) + 8 if kind == "growing" else 8)

    return make
