"""Actions and proprio of episodes, a few frames at a time, from mapped or loaded batches."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pokevla.data.tables.twin import Batches
from pokevla.errors import DataError
from pokevla.recipe.checking.datasets import CONVERT_AGAIN

EPISODE_ROWS = 1024
"""Episodes of a batch."""
SEQUENCES = ("actions", "proprio")
READ_COLUMNS = ("episode", *SEQUENCES)
"""Columns of `episodes.parquet` that are needed, as far as they are there."""


class _Views(NamedTuple):
    """A column of a batch, (E, T, D) with any T, as three views of its memory."""

    frames: np.ndarray  # (E+1,) first frame of each episode
    values: np.ndarray  # (E+1 frames,) first value of each frame
    numbers: np.ndarray


class EpisodeSequences:
    """Access to the sequences of a dataset by episode and frame. Thread-safe."""

    def __init__(self, batches: Batches) -> None:
        """Reads the numbers of the episodes: 16 bytes each."""
        self._batches = batches
        parts = [batches.column(number, "episode").to_numpy(zero_copy_only=False) for number in range(len(batches))]
        numbers = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
        self._order = np.argsort(numbers, kind="stable")
        self._numbers = numbers[self._order]
        self._views: dict[tuple[int, str], _Views] = {}  # one entry for 1,024 episodes

    def __len__(self) -> int:
        return len(self._numbers)

    def frames(self, column: str, episode: int, start: int, stop: int) -> np.ndarray:
        """Frames `start` to `stop` of an episode, (T, D) float64. Raises DataError if the table lacks one of them."""
        place = int(np.searchsorted(self._numbers, episode, side="right")) - 1
        if place < 0 or self._numbers[place] != episode:
            raise DataError(f"Episode {episode} is not in the table of episodes.", CONVERT_AGAIN)
        return self.at(column, int(self._order[place]), start, stop)

    def at(self, column: str, row: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The same by the episode's row in the table; `stop` None is the end of the episode."""
        number, place = divmod(row, self._batches.header.batch_rows)
        views = self._views.get((number, column))
        if views is None:
            views = self._views[number, column] = _views(self._batches.column(number, column))
        first, last = int(views.frames[place]), int(views.frames[place + 1])
        stop = last - first if stop is None else stop
        if not 0 <= start <= stop <= last - first:
            raise DataError(
                f"The table of episodes has {last - first} frames of {column} in row {row}, not {stop}.", CONVERT_AGAIN
            )
        offsets = views.values[first + start : first + stop + 1]
        numbers = views.numbers[offsets[0] : offsets[-1]]
        return numbers.reshape(stop - start, -1).astype(np.float64) if stop > start else np.empty((0, 0))


def _views(column: Any) -> _Views:
    inner = column.values
    return _Views(column.offsets.to_numpy(), inner.offsets.to_numpy(), inner.values.to_numpy(zero_copy_only=False))


def compact_episodes(episodes: pa.Table) -> pa.Table:
    """The columns of `EpisodeSequences` from those of `episodes.parquet`, with 64-bit offsets."""
    names = [name for name in READ_COLUMNS if name in episodes.column_names]
    large = {name: pa.large_list(pa.large_list(episodes.schema.field(name).type.value_type.value_type))
             for name in SEQUENCES if name in names}  # fmt: skip
    return pa.table({name: episodes[name].cast(large[name]) if name in large else episodes[name] for name in names})
