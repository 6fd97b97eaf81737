"""Replays the executed actions of one expert episode in open loop: a baseline without vision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pokevla.embodiment.description import Embodiment
from pokevla.errors import DataError
from pokevla.recipe.checking.datasets import EPISODES_NAME, read_dataset_info, read_table


class ReplayPolicy:
    """Replays `actions` (T, A) from each trial's first step. After the last one the robot stands still and the grippers
    keep their state."""

    needs_images = False
    """A replay needs no rendering."""

    def __init__(self, actions: np.ndarray, embodiment: Embodiment, chunk_length: int) -> None:
        width = embodiment.action_width
        if actions.ndim != 2 or actions.shape[1] != width or len(actions) == 0:
            raise DataError(f"An episode to replay has actions of shape {actions.shape}; (T, {width}) is needed.")
        self.actions = np.asarray(actions, dtype=np.float64)
        self.embodiment = embodiment
        self.chunk_length = chunk_length

    @classmethod
    def from_dataset(cls, dataset: Path, episode: int, chunk_length: int) -> ReplayPolicy:
        """Replay the `executed_actions` of `episode` of a robot dataset. Raises DataError if the episode is missing."""
        info = read_dataset_info(dataset)
        embodiment = info.embodiment
        if embodiment is None:
            raise DataError(f"{dataset} is a dataset of questions: it has no episode.", "Name a robot dataset.")
        table = read_table(dataset, EPISODES_NAME, info.tables, ["episode", "executed_actions"])
        numbers = table.column("episode").to_pylist()
        if episode not in numbers:
            raise DataError(
                f"{dataset / EPISODES_NAME}: no episode {episode}; there are {len(numbers)}, the first is "
                f"{min(numbers)}."
            )
        actions = table.column("executed_actions")[numbers.index(episode)].as_py()
        return cls(np.array(actions), embodiment, chunk_length)

    def act(
        self,
        images: np.ndarray | None,
        proprio: np.ndarray,
        instructions: Sequence[str],
        steps: Sequence[int] | None = None,
    ) -> np.ndarray:
        """(N, K, A): the next actions of each trial. `steps` is required; images and instructions are ignored."""
        if steps is None:
            raise ValueError("a replay needs to know how many actions each trial has executed")
        return np.stack([self._chunk(step) for step in steps])

    def _chunk(self, step: int) -> np.ndarray:
        chunk = self.actions[step : step + self.chunk_length]
        missing = self.chunk_length - len(chunk)
        return np.concatenate([chunk, np.tile(self._still(), (missing, 1))])

    def _still(self) -> np.ndarray:
        """(A,) the action that holds the robot where the episode ended."""
        last = self.actions[-1]
        if self.embodiment.control_mode.startswith("absolute"):
            return last
        still = np.zeros_like(last)
        for gripper in self.embodiment.grippers:
            still[gripper.column] = last[gripper.column]
        return still
