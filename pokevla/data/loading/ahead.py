"""Telling the readers of shards what a batch needs before it is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class AheadReader(Protocol):
    """A reader by row that gains by knowing what comes next."""

    def ahead(self, rows: Sequence[int]) -> None:
        """This thread reads the samples at `rows` next, in any order."""
        ...


def read_ahead(readers: Sequence[Sequence[AheadReader | None]], datasets: np.ndarray, rows: np.ndarray) -> None:
    """Announce the samples (datasets[i], rows[i]), each (B,) int64, to every reader of their dataset: over a network,
    all records of a batch are then under way together.

    Args:
        readers: of samples, of cached features, ...; each with one reader per dataset, or None.
    """
    for dataset in np.unique(datasets).tolist():
        wanted = rows[datasets == dataset].tolist()
        for each in readers:
            reader = each[dataset]
            if reader is not None:
                reader.ahead(wanted)
