"""A simulator of LIBERO's robot without physics: a number that grows with every action, whatever it is."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from pokevla.parts import ENVIRONMENTS
from pokevla.simulation.benchmark import Benchmark

TASK = SimpleNamespace(name="reach", instruction="reach", num_init_states=3, perturbation=None, level=None)


class ReachEnvironment:
    """Solved after as many actions as the initial state says; those that are drawn take longer."""

    def __init__(self, image_size: int, drawn: bool) -> None:
        self.task, self.image_size, self.drawn, self.renderer = TASK, image_size, drawn, "none"

    def reset(self, init_state_index, *, target_shift=None, settle_steps=10) -> None:
        self.left = 2 + init_state_index + 4 * self.drawn

    def step(self, action) -> bool:
        self.left -= 1
        return self.left <= 0

    def observe(self, *, images=True, masks=False) -> SimpleNamespace:
        picture = np.full((2, self.image_size, self.image_size, 3), 90, np.uint8)
        mask = np.zeros(picture.shape[:3], np.uint8)
        proprio = np.zeros(8, np.float32)
        return SimpleNamespace(proprio=proprio, images=picture if images else None, masks=mask if masks else None)

    def close(self) -> None:
        pass


ENVIRONMENTS["reach"] = Benchmark(
    suites=("reach",),
    num_tasks=lambda _suite: 1,
    max_steps=lambda _suite: 6,
    get_task=lambda _suite, _index: TASK,
    make=lambda _suite, _index, settings: ReachEnvironment(settings.image_size, settings.placements == "drawn"),
    embodiment="libero",
    draws_placements=True,
)
