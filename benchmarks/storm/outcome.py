"""What a kill storm found out about one training or command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reporting import row


@dataclass(frozen=True)
class Outcome:
    """Kills of one training or command, and how its result compares with that of an undisturbed one."""

    kills: int
    while_writing: int  # of these, kills after it had begun to write
    lost: int  # checkpoints, trials or other finished parts that a kill has cost
    differing: tuple[str, ...]  # parts of the final result that are not those of the undisturbed one
    notes: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost and the results are equal."""
        return self.lost == 0 and not self.differing

    def to_row(self, name: str) -> dict[str, Any]:
        """Row of the report."""
        result = f"DIFFERENT: {', '.join(self.differing)}" if self.differing else "identical"
        text = f"{self.while_writing} while writing, {self.lost} lost, {result}"
        more = {"while_writing": self.while_writing, "lost": self.lost, "differing": list(self.differing)}
        return row(name, self.kills, "kills", f"{text} ({self.notes})" if self.notes else text, **more)
