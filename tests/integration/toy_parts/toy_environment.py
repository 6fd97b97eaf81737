"""A simulator: a point that is to be moved to the middle of the picture."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from pokevla.parts import ENVIRONMENTS
from pokevla.simulation.benchmark import Benchmark

TASK = SimpleNamespace(name="centre", instruction="Follow the square", num_init_states=4, perturbation=None, level=None)


class PointEnvironment:
    """One task; the first two actions move the point."""

    def __init__(self, image_size: int) -> None:
        self.task = TASK
        self.image_size = image_size

    def reset(self, init_state_index, *, target_shift=None, settle_steps=10) -> None:
        self.position = np.array([0.2 + 0.1 * init_state_index, 0.3])

    def step(self, action) -> bool:
        self.position = np.clip(self.position + 0.01 * np.asarray(action)[:2], 0.0, 0.9)
        return bool(np.abs(self.position - 0.5).max() < 0.05)

    def observe(self, *, images=True, masks=False) -> SimpleNamespace:
        picture = np.full((3, self.image_size, self.image_size, 3), 90, np.uint8)
        x, y = (self.position * self.image_size).astype(int)
        picture[:, y : y + 4, x : x + 4] = (200, 40, 40)
        mask = (picture[..., 0] > 90).astype(np.uint8)
        proprio = np.zeros(12, np.float32)
        return SimpleNamespace(proprio=proprio, images=picture if images else None, masks=mask if masks else None)

    def close(self) -> None:
        pass


ENVIRONMENTS["point"] = Benchmark(
    suites=("centre",),
    num_tasks=lambda _suite: 1,
    max_steps=lambda _suite: 24,
    get_task=lambda _suite, _index: TASK,
    make=lambda _suite, _index, settings: PointEnvironment(settings.image_size),
    embodiment="two-arms",
)
