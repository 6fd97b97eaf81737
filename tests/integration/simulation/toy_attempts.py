"""Attempts that are over at once, for tests of what is done with them. Must be importable in worker processes."""

from __future__ import annotations

import numpy as np

from pokevla.simulation.recordings.episodes import DemoSettings, Episode

ALL_FAIL_SEED = 13
STEPS = 12


class ToyAttempts:
    """Every third attempt fails (1, 4, 7, ...), all of them with the seed ALL_FAIL_SEED."""

    def __init__(self, settings: DemoSettings, first: int) -> None:
        self._settings = settings
        self._first = first

    def __call__(self, job: int) -> Episode:
        settings, number = self._settings, self._first + job
        success = number % 3 != 1 and settings.seed != ALL_FAIL_SEED
        rendered = np.arange(STEPS) % settings.image_stride == 0
        size = settings.image_size
        arrays = {
            "actions": np.full((STEPS, 7), number / 100),
            "obs/rendered": rendered,
            "obs/agentview_rgb": np.full((rendered.sum(), size, size, 3), number, np.uint8),
        }
        return Episode(
            success=success,
            init_state_index=number,
            target_shift=(0.0, 0.0),
            seed=number,
            init_state=np.zeros(3),
            arrays=arrays if success else {},
            instances=["a_1"],
            target_instances=["a_1"],
            model_xml="<mujoco/>",
            cpu_s={"physics": 1.0},
        )
