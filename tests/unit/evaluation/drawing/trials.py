"""Trials to draw."""

from __future__ import annotations

import numpy as np

from pokevla.evaluation.running.messages import Query
from pokevla.evaluation.trials import Trial

TRIAL = Trial(
    policy="trained", suite="libero_object", task_index=3, init_state_index=30, number=0, seed=7, target_shift_m=None,
    max_steps=220, settle_steps=10,
)  # fmt: skip
NAME = "trained-libero_object-t3-i30"


def query(step: int, masks: np.ndarray | None = None, instruction: str = "pick up the sauce") -> Query:
    """An observation of two views of 31 x 33 pixels."""
    images = np.random.default_rng(step).integers(0, 255, (2, 31, 33, 3), dtype=np.uint8)
    return Query(step, instruction, np.zeros(8, np.float32), images, masks)


def chunk(value: float = 0.5, length: int = 8) -> np.ndarray:
    """Actions (length, 7) that are all the same."""
    return np.full((length, 7), value, np.float32)
