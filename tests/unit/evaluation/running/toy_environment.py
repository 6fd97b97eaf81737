"""A point that has to reach 1.0, with the interface of LiberoEnvironment: quick enough for tests of the processes."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pokevla.errors import EnvironmentSetupError, SimulationError, UsageError

DYING_STATE = 13
RAISING_STATE = 14
HANGING_STATE = 15
DYING_ONCE_STATE = 16
REFUSING_STATE = 19
HANGING_RESET_STATE = 21
BRIEF_STATE = 23
"""Solved after the fourth action, and not any more after the fifth."""


class ToyEnvironment:
    def __init__(self, suite: str, task_index: int) -> None:
        if task_index == 99:
            raise UsageError("no such task.")
        if os.environ.get("MUJOCO_EGL_DEVICE_ID") == "broken":
            raise EnvironmentSetupError("no EGL here.")
        self.task = SimpleNamespace(name=f"{suite}-{task_index}", instruction="reach", perturbation=None, level=None)
        self.resets = 0

    @property
    def renderer(self) -> str:
        return f"toy, trial {self.resets}"

    def reset(self, init_state_index, *, target_shift=None, settle_steps=10) -> None:
        if init_state_index == HANGING_RESET_STATE:
            os.kill(os.getpid(), signal.SIGSTOP)
        self.resets += 1
        self.index, self.steps = init_state_index, 0
        self.place = 0.01 * init_state_index + (target_shift[0] if target_shift else 0.0)

    def sample_target_shift(self, init_state_index, rng, low_m, high_m):
        return tuple(rng.uniform(low_m, high_m, 2))

    def step(self, action) -> bool:
        if self.index == DYING_STATE:
            os.kill(os.getpid(), 9)
        if self.index == RAISING_STATE:
            raise ZeroDivisionError("physics")
        if self.index == HANGING_STATE:
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.index == REFUSING_STATE:
            raise SimulationError("the arm does not reach it.")
        marker = Path(os.environ.get("POKEVLA_TOY_MARKER", os.devnull))
        if self.index == DYING_ONCE_STATE and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), 9)
        self.steps += 1
        if self.index == BRIEF_STATE:
            return self.steps == 4
        self.place += float(action[0])
        return self.place >= 1.0

    def observe(self, *, images=True, masks=False):
        proprio = np.full(8, self.place, np.float32)
        pictures = np.full((2, 4, 4, 3), 7, np.uint8) if images else None
        return SimpleNamespace(proprio=proprio, images=pictures, masks=np.zeros((2, 4, 4), np.uint8) if masks else None)

    def close(self) -> None:
        pass
