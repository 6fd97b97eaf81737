"""Keeps what a policy saw first and last in a trial, so that every record can be checked by eye."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from pokevla.errors import DiskFullError
from pokevla.evaluation.folder import OBSERVATIONS
from pokevla.evaluation.running.messages import Query
from pokevla.evaluation.running.watching import Ending, TrialWatcher, Watched
from pokevla.files.writing import atomic_path

logger = logging.getLogger(__name__)

JPEG_QUALITY = 85
"""About 25 kB for two views of 256 px at two moments."""


class FirstAndLast:
    """A `TrialWatcher` that writes `observations/NAME.jpg`: first observation above, last below, views side by side.

    Passes everything on to a second watcher, which may draw a video.
    """

    def __init__(self, folder: Path, name: str, other: TrialWatcher | None = None) -> None:
        self._folder = folder
        self._path = folder / OBSERVATIONS / f"{name}.jpg"
        self._other = other
        self._moments: list[np.ndarray] = []
        self.wants_masks = other is not None and other.wants_masks

    def see(self, query: Query, chunk: np.ndarray | None) -> None:
        """Keep the images of an observation, (V, H, W, 3) uint8, if it is the first or the last so far."""
        if query.images is not None:
            self._moments = [*self._moments[:1], query.images]
        if self._other is not None:
            self._other.see(query, chunk)

    def finish(self, ending: Ending) -> Watched:
        """Write the picture; without room on the disk the trial counts all the same, and the log says so.

        Raises:
            DataError: writing failed otherwise.
        """
        watched = self._other.finish(ending) if self._other is not None else Watched()
        if self._moments:
            try:
                watched["picture"] = self._write()
            except DiskFullError as error:
                logger.warning("the first and last picture of %s are left out: %s", self._path.stem, error)
        return watched

    def _write(self) -> str:
        rows = [np.concatenate(list(views), axis=1) for views in self._moments]
        with atomic_path(self._path) as temporary:
            Image.fromarray(np.concatenate(rows)).save(temporary, "JPEG", quality=JPEG_QUALITY)
        return str(self._path.relative_to(self._folder))
