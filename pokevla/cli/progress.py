"""Progress of a command: a bar on a terminal, an occasional line in a log. Both say when it will end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pokevla.telemetry.time_left import TimeLeft


class Listener(Protocol):
    """Receives progress."""

    def __call__(self, done: int, total: int | None = None, failed: int | None = None) -> None:
        """`done` of `total` (None: not known yet); `failed` where attempts can fail."""
        ...


@contextmanager
def progress(what: str, unit: str = "") -> Iterator[Listener]:
    """Yield a listener that shows `what` on stderr: a bar on a terminal, otherwise a line at every tenth of the total,
    or each time the count has doubled if the total is not known. With a `unit`, also how many of them a second."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from pokevla.cli.terminal import PlainConsole

    console = PlainConsole(stderr=True)
    failures_column = TextColumn("{task.description}")
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    columns = (TextColumn(what, markup=False), BarColumn(), MofNCompleteColumn(), failures_column, *times)
    left = TimeLeft()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        next_line = 0

        def listen(done: int, total: int | None = None, failed: int | None = None) -> None:
            nonlocal next_line
            failures = "" if failed is None else f"{failed} failed"
            if console.is_terminal:
                left.after(done, total)
                described = [part for part in (failures, left.speed(unit)) if part]
                bar.update(task, completed=done, total=total, description=", ".join(described))
            elif done >= next_line or done == total:
                so_far = f"{what}: {done}" + (f" of {total}" if total else "")
                eta = left.after(done, total)
                parts = [part for part in (so_far, failures, left.speed(unit), eta) if part]
                console.print(", ".join(parts), soft_wrap=True)
                next_line = max(2 * done, 1) if total is None else done + max(1, total // 10)

        yield listen
