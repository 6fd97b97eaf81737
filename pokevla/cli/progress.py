"""Progress of a command: a bar on a terminal, an occasional line in a log. Both say when it will end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from pokevla.telemetry.figures import duration

WINDOW = 20
"""Latest lines, or updates of a bar, that the time left follows from."""


class Listener(Protocol):
    """Receives progress."""

    def __call__(self, done: int, total: int | None = None, failed: int | None = None) -> None:
        """`done` of `total` (None: not known yet); `failed` where attempts can fail."""
        ...


class TimeLeft:
    """Estimates when something countable will be done, at its recent speed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque(maxlen=WINDOW)

    def after(self, done: int, total: int | None) -> str:
        """`ETA 3 min 20 s` once `done` of `total` are done; empty at the first call and where there is no answer.

        A smaller `done` than before begins something new.
        """
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((self._clock(), done))
        (start_s, first), (end_s, last) = self._seen[0], self._seen[-1]
        if total is None or last <= first or done >= total:
            return ""
        return f"ETA {duration((total - done) * (end_s - start_s) / (last - first))}"


@contextmanager
def progress(what: str) -> Iterator[Listener]:
    """Yield a listener that shows `what` on stderr: a bar on a terminal, otherwise a line at every tenth of the total,
    or each time the count has doubled if the total is not known."""
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
            bar.update(task, completed=done, total=total, description=failures)
            if not console.is_terminal and (done >= next_line or done == total):
                so_far = f"{what}: {done}" + (f" of {total}" if total else "")
                parts = [part for part in (so_far, failures, left.after(done, total)) if part]
                console.print(", ".join(parts), soft_wrap=True)
                next_line = max(2 * done, 1) if total is None else done + max(1, total // 10)

        yield listen
