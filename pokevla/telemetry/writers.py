"""Where the figures of a run go: `metrics.jsonl` always, TensorBoard beside it. Both only on rank 0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pokevla.telemetry.jsonl import JsonlWriter, now
from pokevla.telemetry.tensorboard import TENSORBOARD, TensorBoardWriter

METRICS = "metrics.jsonl"
"""File of a run's figures, in its directory."""


class MetricWriter:
    """Metrics of a run: `metrics.jsonl` and `tensorboard/` on rank 0, nothing on the others."""

    def __init__(self, run_dir: Path, rank: int = 0, resume_step: int | None = None, tensorboard: bool = True) -> None:
        self.jsonl = JsonlWriter(run_dir / METRICS, resume_step) if rank == 0 else None
        self.tensorboard = TensorBoardWriter(run_dir / TENSORBOARD, resume_step) if rank == 0 and tensorboard else None

    def write(self, values: Mapping[str, Any]) -> None:
        """Write one line; `values` holds `step`. The time is added. Flushed: a kill loses no line in either place."""
        if self.jsonl is not None:
            self.jsonl.write({**values, "time": now()})
        if self.tensorboard is not None:
            self.tensorboard.scalars({name: value for name, value in values.items() if name != "step"}, values["step"])
        self.flush()

    def flush(self) -> None:
        """Hand everything to the system. `metrics.jsonl` needs no help; TensorBoard's writer holds events back."""
        if self.tensorboard is not None:
            self.tensorboard.flush()

    def describe(self, settings: Mapping[str, Any], texts: Mapping[str, str], step: int) -> None:
        """Tell TensorBoard what the run is: its settings, and texts (recipe, manifest) as they stand at `step`."""
        if self.tensorboard is not None:
            self.tensorboard.settings(settings)
            for name, text in texts.items():
                self.tensorboard.text(name, text, step)

    def finish(self) -> None:
        """The run has come to its end."""
        if self.tensorboard is not None:
            self.tensorboard.finished()

    def close(self) -> None:
        """Close both."""
        for writer in (self.jsonl, self.tensorboard):
            if writer is not None:
                writer.close()
