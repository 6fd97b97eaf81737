"""Progress display in the terminal that started a run. Reads `metrics.jsonl`, which rank 0 writes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pokevla.telemetry.follow import JsonlFollower
from pokevla.telemetry.writers import METRICS

_SHOWN = ("loss", "loss/action", "loss/next_token", "val/loss", "grad_norm", "lr", "samples_per_s")


class ProgressView:
    """Shows a progress bar on a terminal and plain lines in a log. Call `update` regularly; it never blocks."""

    def __init__(self, run_dir: Path, total_steps: int | None, console: Console | None = None) -> None:
        # From the end, even if the ranks first truncate what a killed run wrote after its last checkpoint.
        self._metrics = JsonlFollower(run_dir / METRICS, tail_bytes=0)
        self.console = console or Console(file=sys.stderr, markup=False, emoji=False)
        self._total = total_steps
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=False)
            self._task = self._bar.add_task("starting", total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self) -> None:
        """Show the lines written since the last call."""
        for row in self._metrics.read():
            self._show(row)

    def print_line(self, text: str) -> None:
        """Print one line of text above the bar."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def _show(self, row: dict[str, Any]) -> None:
        if self._bar is not None and self._task is not None:
            if "loss" in row:
                self._bar.update(self._task, completed=row["step"], description=f"loss {_number(row['loss'])}")
            return
        shown = [f"{name} {_number(row[name])}" for name in _SHOWN if row.get(name) is not None]
        if any(name in row for name in _SHOWN):
            self.console.print("  ".join([f"step {row['step']}", *shown]), highlight=False, soft_wrap=True)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "not finite"
