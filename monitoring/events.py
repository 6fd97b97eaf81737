"""Counts and latest entries of a run's `events.jsonl`."""

from __future__ import annotations

from collections import Counter, deque
from pathlib import Path
from typing import Any

from pokevla.telemetry.follow import JsonlFollower
from pokevla.telemetry.jsonl import EVENTS

KEPT = 8
"""Number of latest events to show."""
STARTS = ("started", "resumed")
ENDS = ("finished", "failed", "stopped")
"""Events by which a job records how it ended. A job without one was killed."""


class EventTally:
    """Counts of all events and the latest few, kept up to date by `refresh`."""

    def __init__(self, run_dir: Path) -> None:
        self._follower = JsonlFollower(run_dir / EVENTS)
        self._forget()

    def _forget(self) -> None:
        self.counts: Counter[str] = Counter()
        self.latest: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.last_start: dict[str, Any] | None = None
        self.last_turn: dict[str, Any] | None = None
        """The latest event about a start or an end."""

    def refresh(self) -> list[dict[str, Any]]:
        """Read and return new events."""
        rows = self._follower.read_all()
        if self._follower.replaced:
            self._forget()
        for row in rows:
            name = str(row.get("event"))
            self.counts[name] += 1
            self.latest.append(row)
            if name in STARTS:
                self.last_start = row
            if name in STARTS or name in ENDS:
                self.last_turn = row
        return rows


def sentence(row: dict[str, Any]) -> str:
    """An event in words: its name, then its fields."""
    fields = {name: value for name, value in row.items() if name not in ("time", "event") and value not in (None, [])}
    return " ".join([str(row.get("event")), *(f"{name} {value}" for name, value in fields.items())])
