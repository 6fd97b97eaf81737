"""What a format has to give: a source of episodes. Everything after that is the same for all formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pokevla.data.recordings.faults import Finding
from pokevla.embodiment.description import Embodiment

Frame = np.ndarray | bytes
"""An image: (H,W,3) uint8 in RGB, or the bytes of a JPEG or PNG."""


@dataclass(frozen=True)
class Episode:
    """One recorded episode of T frames, each observed before the action of the same row."""

    instruction: str
    """What the robot was told to do. Empty if the source does not say."""
    actions: np.ndarray
    """(T,A), raw commands in the units of the embodiment."""
    proprio: np.ndarray
    """(T,P), the robot's state in the units of the embodiment."""
    frames: Mapping[str, Iterable[Frame]]
    """View -> T images. Read once, in step for all views, so an iterable may decode one image at a time."""
    timestamps: np.ndarray | None = None
    """(T,) seconds; None if the source has none."""
    split: str | None = None
    """`train` or `val`; None if the source does not say."""
    camera_rates: Mapping[str, float] = field(default_factory=dict)
    """View -> images per second that its file states."""
    findings: tuple[Finding, ...] = ()
    """What the reader has noticed."""


ReadEpisode = Callable[[int], Episode]
"""The episode of a number. Raises a `Fault`, or another DataError, for one that cannot be read."""


class Source(Protocol):
    """Recordings of one robot. With several workers, each has its own copy, made by pickling."""

    @property
    def name(self) -> str:
        """Short name: prefix of keys and shards."""
        ...

    @property
    def embodiment(self) -> Embodiment:
        """The robot."""
        ...

    @property
    def num_episodes(self) -> int:
        """Number of episodes, damaged ones included."""
        ...

    def episode_name(self, number: int) -> str:
        """What an episode is called in reports, such as `episode_3.hdf5`."""
        ...

    def identity(self) -> dict[str, Any]:
        """JSON values: what is taken of which recordings. Finished episodes of another identity are not used."""
        ...

    def episode_identity(self, number: int) -> Any:
        """JSON value that changes when the files of an episode change, such as their sizes and times."""
        ...

    def provenance(self) -> list[dict[str, Any]]:
        """Entries for `sources` of dataset.json."""
        ...

    def opened(self) -> AbstractContextManager[ReadEpisode]:
        """Open the files, or what reads them, for one process."""
        ...
