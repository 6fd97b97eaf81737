"""What a policy has to beat: one constant action, and the chunk after the most similar recorded frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pokevla.data.reader import ShardReader
from pokevla.evaluation.open_loop.frames import Frames

THUMBNAIL_SIDE = 8
"""Pixels. Ours: enough to see where things are, too little to tell recordings apart by noise."""


def constant_actions(reference: Frames) -> np.ndarray:
    """(A,) the median of the reference's actions by column: of all constants the one with the least absolute error."""
    return np.median(reference.actions.reshape(-1, reference.actions.shape[-1]), axis=0)


class NearestNeighbour:
    """The recorded chunk after the reference frame that looks most alike.

    Frames are compared by proprio and by grey thumbnails of all views, each standardised over the reference and
    weighted alike. Frames with the same instruction come first, if there are any. The idea is that of VINN (Pari et
    al., arXiv 2112.01511), with pixels in place of learned features.
    """

    def __init__(self, reference: Frames, on_frame: Callable[[int], None]) -> None:
        """Reads the images of every reference frame; `on_frame` is told how many are read."""
        self._actions = reference.actions
        self._instructions = np.array(reference.instructions, dtype=object)
        reader = ShardReader(reference.dataset)
        try:
            raw = []
            for index in range(len(reference)):
                raw.append(reference.thumbnails(reader, index, THUMBNAIL_SIDE))
                on_frame(index + 1)
        finally:
            reader.close()
        thumbnails = np.stack(raw)
        self._scales = [_scale(reference.proprio), _scale(thumbnails)]
        self._features = self._standardised(reference.proprio, thumbnails)  # (R, F)

    def chunk(self, frames: Frames, reader: ShardReader, index: int) -> np.ndarray:
        """(K, A) for one frame. Of equally near frames the first is taken."""
        own = self._standardised(
            frames.proprio[index][None], frames.thumbnails(reader, index, THUMBNAIL_SIDE)[None]
        )  # (1, F)
        candidates = np.flatnonzero(self._instructions == frames.instructions[index])
        if len(candidates) == 0:
            candidates = np.arange(len(self._features))
        distances = np.square(self._features[candidates] - own).sum(axis=1)
        return self._actions[candidates[int(np.argmin(distances))]]

    def _standardised(self, proprio: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
        parts = [
            (values - mean) / (std * np.sqrt(values.shape[1]))
            for values, (mean, std) in zip((proprio, thumbnails), self._scales, strict=True)
        ]
        return np.concatenate(parts, axis=1)


def _scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column (D,); 1 where a column is constant."""
    std = values.std(axis=0)
    return values.mean(axis=0), np.where(std > 0, std, 1.0)
