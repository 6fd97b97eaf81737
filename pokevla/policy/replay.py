"""The executed actions of one expert episode, played back blindly: a baseline that cannot look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pokevla.errors import DataError
from pokevla.recipe.checking.datasets import EPISODES_NAME


class ReplayPolicy:
    """Plays `actions` (T, 7) from each trial's first step on; after the end it stands still, gripper as it was."""

    needs_images = False
    """Nothing is rendered for a replay."""

    def __init__(self, actions: np.ndarray, chunk_length: int) -> None:
        if actions.ndim != 2 or actions.shape[1] != 7 or len(actions) == 0:
            raise DataError(f"An episode to replay has actions of shape {actions.shape}; (T, 7) is needed.")
        self.actions = np.asarray(actions, dtype=np.float64)
        self.chunk_length = chunk_length

    @classmethod
    def from_dataset(cls, dataset: Path, episode: int, chunk_length: int) -> ReplayPolicy:
        """The `executed_actions` of `episode` in a robot dataset. DataError when there is no such episode."""
        import pyarrow.parquet as parquet

        path = dataset / EPISODES_NAME
        if not path.is_file():
            raise DataError(
                f"{path}: not there, so there is no episode to replay.", "Run `pokevla data convert` first."
            )
        table = parquet.read_table(path, columns=["episode", "executed_actions"])
        numbers = table.column("episode").to_pylist()
        if episode not in numbers:
            raise DataError(f"{path}: no episode {episode}; there are {len(numbers)}, the first is {min(numbers)}.")
        actions = table.column("executed_actions")[numbers.index(episode)].as_py()
        return cls(np.array(actions), chunk_length)

    def act(
        self,
        images: np.ndarray | None,
        proprio: np.ndarray,
        instructions: Sequence[str],
        steps: Sequence[int] | None = None,
    ) -> np.ndarray:
        """(N, K, 7): the next actions of each trial. `steps` is needed; images and instructions are ignored."""
        if steps is None:
            raise ValueError("a replay needs to know how many actions each trial has executed")
        return np.stack([self._chunk(step) for step in steps])

    def _chunk(self, step: int) -> np.ndarray:
        chunk = self.actions[step : step + self.chunk_length]
        still = np.zeros(7)
        still[6] = self.actions[-1, 6]
        missing = self.chunk_length - len(chunk)
        return np.concatenate([chunk, np.tile(still, (missing, 1))])
