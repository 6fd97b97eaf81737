"""A sink of metrics: the loss of each step in a CSV file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pokevla.parts import METRIC_SINKS


class CsvSink:
    """Appends `step,loss` to `losses.csv` of the run."""

    def __init__(self, run_dir: Path, resume_step: int | None = None) -> None:
        self.file = (run_dir / "losses.csv").open("a", encoding="utf-8")

    def write(self, values: Mapping[str, Any]) -> None:
        if "loss" in values:
            self.file.write(f"{values['step']},{values['loss']!r}\n")

    def describe(self, settings: Mapping[str, Any], texts: Mapping[str, str], step: int) -> None:
        pass

    def flush(self) -> None:
        self.file.flush()

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self.file.close()


METRIC_SINKS["csv"] = CsvSink
