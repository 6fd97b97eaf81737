"""Watches the ranks from their parent process: for what their own watchdogs cannot report.

A rank that hangs before its watchdog runs (an import from a dead file system), or one whose threads are all blocked,
reports nothing. And on a full disk no log and no metrics line says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pokevla.distributed.process import FULL_BYTES
from pokevla.errors import HangError, command_line
from pokevla.files.failures import free_bytes
from pokevla.telemetry.heartbeat import newest_beat_s

EVERY_S = 5.0
"""Seconds between two checks."""
MARGIN_S = 120.0
"""Added to the longest time that a phase may last. The watchdogs of the ranks fire first: their report says more."""


class RankMonitor:
    """Call `check` regularly; it looks at most every EVERY_S seconds."""

    def __init__(
        self,
        run_dir: Path,
        start_timeout_s: float,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`start_timeout_s`: the longest time that a phase of a rank may last. `say` shows a sentence to the user."""
        self._run_dir, self._limit_s, self._say, self._clock = run_dir, start_timeout_s + MARGIN_S, say, clock
        self._looked = clock()
        self._silent_s = 0.0
        self._newest: float | None = newest_beat_s(run_dir)
        self._full = False

    def check(self) -> None:
        """Report a full disk, once, and end ranks that are all silent.

        Raises:
            HangError: no heartbeat has been written for longer than a phase may last.
        """
        now = self._clock()
        passed_s = now - self._looked
        if passed_s < EVERY_S:
            return
        self._looked = now
        self._note_full_disk()
        newest = newest_beat_s(self._run_dir)
        # A suspended job (Ctrl-Z) does not hang, and on a full disk there are no heartbeats.
        quiet = newest == self._newest and not self._full
        self._silent_s = self._silent_s + min(passed_s, 2 * EVERY_S) if quiet else 0.0
        self._newest = newest
        if self._silent_s > self._limit_s:
            raise HangError(
                f"No rank has written a heartbeat for {self._silent_s:.0f} s: they hang where their watchdogs cannot "
                "report it, in an import from a file system that does not answer, say. All were killed.",
                f"Continue with: {command_line('resume', self._run_dir)}",
            )

    def _note_full_disk(self) -> None:
        try:
            full = free_bytes(self._run_dir) < FULL_BYTES
        except OSError:  # the disk does not even report its free space
            return
        if full and not self._full:
            self._say(
                f"warning: the disk of {self._run_dir} is full: training goes on, metrics and logs wait in memory. "
                "Free some space before the last save."
            )
        if self._full and not full:
            self._say(f"there is room on the disk of {self._run_dir} again")
        self._full = full
