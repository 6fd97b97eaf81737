"""A sink of metrics: the loss of each step in a CSV file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pokevla.parts import METRIC_SINKS


class LossTable:
    """Writes `losses.csv` into the run directory."""

    def __init__(self, run_dir: Path, resume_step: int | None = None) -> None:
        self._file = (run_dir / "losses.csv").open("w" if not resume_step else "a", encoding="utf-8")

    def write(self, values: Mapping[str, Any]) -> None:
        """One line per step, of the lines that have a loss."""
        if "loss" in values:
            self._file.write(f"{values['step']},{values['loss']}\n")

    def describe(self, settings: Mapping[str, Any], texts: Mapping[str, str], step: int) -> None:
        """The table has no room for settings."""

    def flush(self) -> None:
        """Hand the lines to the system."""
        self._file.flush()

    def finish(self) -> None:
        """Mark the end."""
        self._file.write("end\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


METRIC_SINKS["losses"] = LossTable
