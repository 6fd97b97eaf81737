"""Held-out frames of a robot dataset: what the policy is shown, and the actions that were recorded after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pokevla.data.dataset import Dataset, usable_rows
from pokevla.data.images.decoding import decode_image
from pokevla.data.reader import ShardReader, member
from pokevla.errors import DataError
from pokevla.evaluation.vlm.grounding import spread


@dataclass(frozen=True)
class Frames:
    """Some frames of one split of a dataset, in order: N frames, K actions after each; A and P as in the embodiment."""

    dataset: Dataset
    rows: np.ndarray
    """(N,) int64 rows of the dataset's table."""
    episodes: np.ndarray
    """(N,) number of the episode of each frame."""
    numbers: np.ndarray
    """(N,) number of the frame in its episode."""
    instructions: Sequence[str]
    proprio: np.ndarray
    """(N, P) float64, raw."""
    actions: np.ndarray
    """(N, K, A) float64, raw: those recorded from each frame on."""

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, reader: ShardReader, index: int) -> np.ndarray:
        """(V, H, W, 3) uint8: the views of a frame as they were recorded.

        Raises:
            DataError: an image is missing or damaged, or the views differ in size.
        """
        views = [np.asarray(image) for image in self._decoded(reader, index)]
        if len({view.shape for view in views}) > 1:
            sizes = ", ".join(f"{view.shape[1]} x {view.shape[0]}" for view in views)
            raise DataError(
                f"sample {self.key(index)} of {self.dataset.root} has views of {sizes} px; a policy takes one size.",
                "Convert the dataset again with one image size.",
            )
        return np.stack(views)

    def thumbnails(self, reader: ShardReader, index: int, side: int) -> np.ndarray:
        """(V * side * side,) float64: the views of a frame in grey, reduced to `side` pixels."""
        small = []
        for image in self._decoded(reader, index):
            image = image.convert("L").resize((side, side), Image.Resampling.BOX)
            small.append(np.asarray(image, dtype=np.float64).ravel())
        return np.concatenate(small)

    def key(self, index: int) -> str:
        """Name of a frame's sample."""
        return self.dataset.rows.text("key", int(self.rows[index]))

    def recorded(self, episode: int) -> np.ndarray:
        """(T, A) raw actions of a whole episode."""
        if self.dataset.episodes is None:
            raise DataError(f"{self.dataset.root} is a dataset of questions.", "Name a robot dataset.")
        row = int(np.flatnonzero(self.dataset.episodes["episode"].to_numpy() == episode)[0])
        return self.dataset.sequences.at("actions", row)

    def _decoded(self, reader: ShardReader, index: int) -> Iterator[Image.Image]:
        embodiment = self.dataset.embodiment
        if embodiment is None:
            raise DataError(f"{self.dataset.root} is a dataset of questions.", "Name a robot dataset.")
        key, members = self.key(index), reader.read(int(self.rows[index]))
        for view in embodiment.views:
            yield decode_image(member(members, f"{view}.jpg", key), key)


def select_frames(dataset: Dataset, split: str, horizon: int, most: int) -> Frames:
    """At most `most` frames of a split that have `horizon` actions after them, evenly spread over the split.

    Raises:
        DataError: it is a dataset of questions, or no frame of the split has so many actions after it.
    """
    if dataset.embodiment is None:
        raise DataError(f"{dataset.root} is a dataset of questions: it has no actions.", "Name a robot dataset.")
    usable = usable_rows(dataset, split, horizon)
    rows, table, sequences = usable[np.array(spread(len(usable), most))], dataset.rows, dataset.sequences
    episodes = [table.number("episode", row) for row in rows.tolist()]
    numbers = [table.number("frame", row) for row in rows.tolist()]
    places = list(zip(episodes, numbers, strict=True))
    return Frames(
        dataset, rows, np.array(episodes), np.array(numbers),
        [table.text("instruction", row) for row in rows.tolist()],
        np.concatenate([sequences.frames("proprio", episode, frame, frame + 1) for episode, frame in places]),
        np.stack([sequences.frames("actions", episode, frame, frame + horizon) for episode, frame in places]),
    )  # fmt: skip
