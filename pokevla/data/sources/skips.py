"""Episodes that a conversion leaves out: counted, told, and refused beyond a share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pokevla.errors import DataError


@dataclass
class Skips:
    """Episodes (or other units) of a conversion that cannot be used."""

    max_share: float
    """Largest share of `total` that may be left out. 0: the first one ends the conversion."""
    total: int
    unit: str = "episodes"
    reasons: dict[str, str] = field(default_factory=dict)
    """Episode (`FILE: data/demo_0`) -> why it was left out."""

    def add(self, episode: str, error: DataError) -> None:
        """Leave out one episode because of `error`. Raises DataError if that makes too many."""
        self.reasons[episode] = error.message
        count = len(self.reasons)
        if count <= self.max_share * self.total:
            return
        if self.max_share == 0:
            raise error
        raise DataError(
            f"{count} of {self.total} {self.unit} cannot be used, more than the allowed share of {self.max_share:g}. "
            f"The last one: {error.message}",
            "Repair the source, or allow more with --max-skipped.",
        )

    def info(self) -> dict[str, Any]:
        """Entry for dataset.json: nothing if nothing was left out."""
        return {"skipped": self.reasons} if self.reasons else {}

    def notes(self) -> list[str]:
        """Sentences for the user."""
        if not self.reasons:
            return []
        return [f"left out {len(self.reasons)} of {self.total} {self.unit}:", *self.reasons.values()]
