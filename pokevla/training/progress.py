"""Progress display in the terminal that started a run. Reads `metrics.jsonl`, which rank 0 writes."""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from pokevla.errors import DataError
from pokevla.telemetry.figures import duration, number
from pokevla.telemetry.follow import JsonlFollower
from pokevla.telemetry.pace import RECENT_LINES, seconds_per_step
from pokevla.telemetry.writers import METRICS

_SHOWN = ("loss", "loss/action", "loss/next_token", "val/loss", "grad_norm", "lr", "samples_per_s")
_KEPT_LINES = 10 * RECENT_LINES


class ProgressView:
    """Shows a progress bar on a terminal and plain lines in a log. Call `update` regularly; it never blocks."""

    def __init__(self, run_dir: Path, total_steps: int | None, console: Console | None = None) -> None:
        # From the end, even if the ranks first truncate what a killed run wrote after its last checkpoint.
        self._path = run_dir / METRICS
        self._metrics: JsonlFollower | None = None
        with suppress(DataError):  # the run sets a file aside that cannot be read
            self._metrics = JsonlFollower(self._path, tail_bytes=0)
        self.console = console or Console(file=sys.stderr, markup=False, emoji=False)
        self._total = total_steps
        self._recent: deque[dict[str, Any]] = deque(maxlen=_KEPT_LINES)
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            text = ("{task.description}", "{task.completed}/{task.total} steps", "{task.fields[left]}")
            columns = (TextColumn(text[0]), BarColumn(), TextColumn(text[1]), TextColumn(text[2]))
            self._bar = Progress(*columns, console=self.console, transient=False)
            self._task = self._bar.add_task("starting", total=self._total, left="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self) -> None:
        """Show the lines written since the last call."""
        try:
            self._metrics = self._metrics or JsonlFollower(self._path)
            rows = self._metrics.read()
        except DataError:  # there is nothing to show
            return
        for row in rows:
            self._show(row)

    def print_line(self, text: str) -> None:
        """Print one line of text above the bar, whole, whatever the width of the terminal."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _show(self, row: dict[str, Any]) -> None:
        if "loss" in row:
            self._recent.append(row)
        left = self._time_left(row["step"]) if "loss" in row else ""
        if self._bar is not None and self._task is not None:
            if "loss" in row:
                text = f"loss {number(row['loss'])}"
                self._bar.update(self._task, completed=row["step"], description=text, left=left)
            return
        if any(name in row for name in _SHOWN):
            step = f"step {row['step']}" if self._total is None else f"step {row['step']}/{self._total}"
            shown = [f"{name} {number(row[name])}" for name in _SHOWN if row.get(name) is not None]
            self.print_line("  ".join(part for part in (step, *shown, left) if part))

    def _time_left(self, step: int) -> str:
        """`ETA 12 min 30 s`, at the speed of the recent window; empty where it is not known yet, and at
        the end."""
        if self._total is None or step >= self._total or len(self._recent) < 2:  # the first step includes starting
            return ""
        step_s = seconds_per_step(self._recent)
        return "" if step_s is None else f"ETA {duration(max(0, self._total - step) * step_s)}"
