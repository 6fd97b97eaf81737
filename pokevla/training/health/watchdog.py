"""A watchdog per rank: writes the heartbeat, and ends a rank that makes no progress for too long.

When one rank hangs, all others wait for it in a collective and the job wastes its remaining hours. Every rank dumps its
stacks, so the one that is not waiting in a collective can be identified.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pokevla.distributed.environment import RankInfo
from pokevla.errors import DataError, HangError, Requeued, command_line
from pokevla.telemetry.heartbeat import (
    Heartbeat,
    beat,
    is_lowest_reporting,
    lagging_ranks,
    read_heartbeats,
    remove_heartbeats,
)
from pokevla.telemetry.jsonl import EVENTS, EventLog, now
from pokevla.telemetry.logging import stacks_path
from pokevla.training.health.pulse import Pulse

logger = logging.getLogger(__name__)

EVERY_S = 10.0
"""Maximum time between two heartbeats, in seconds."""
BEATS = 5
"""Minimum number of heartbeats within the time limit of a phase."""
LOOK_S = 1.0
"""Maximum time between two checks of the pulse, in seconds. All ranks should detect a hang within LINGER_S of each
other."""
LINGER_S = 5.0
"""Seconds between dump and exit. When one rank exits, the others are terminated; by then they should have dumped their
stacks."""
LAST_RESORT_S = 60.0
"""Seconds after which a rank exits even if its dump is not written: the hang may be in the file system."""


class Watchdog:
    """Two threads beside the loop: one writes heartbeats, the other watches the pulse. In normal operation only the
    first accesses the file system, so a hanging file system cannot block the second.

    A C function that never releases the GIL blocks both threads; then the watchdogs of the other ranks end the job.
    """

    def __init__(
        self,
        run_dir: Path,
        info: RankInfo,
        pulse: Pulse,
        on_hang: Callable[[HangError], None] | None = None,
        end: Callable[[int], None] = os._exit,
    ) -> None:
        """`on_hang` is called in the watchdog's thread before the process ends with `end(exit code)`."""
        self.run_dir, self.info, self.pulse = run_dir, info, pulse
        self.host = socket.gethostname()
        self._on_hang, self._end = on_hang, end
        self._every_s = min(EVERY_S, pulse.step_timeout_s / BEATS)
        self._unwritable = False
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"pokevla-{target.__name__}", daemon=True)
            for target in (self._beat_on, self._watch)
        ]

    def __enter__(self) -> Self:
        if self.info.is_main:
            remove_heartbeats(self.run_dir, self.info.world_size)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        self.pulse.enter("finished" if kind is None else "stopped" if issubclass(kind, Requeued) else "failed")
        self._beat()

    def _beat(self) -> None:
        pulse = self.pulse
        try:
            beat(self.run_dir, rank=self.info.rank, host=self.host, step=pulse.step, phase=pulse.name,
                 phase_s=time.monotonic() - pulse.since, progress=pulse.progress, every_s=self._every_s)  # fmt: skip
        except DataError as error:  # a full disk must not end training here; the next save reports it
            if not self._unwritable:
                logger.warning("no heartbeat can be written: %s", error)
            self._unwritable = True

    def _beat_on(self) -> None:
        self._beat()
        while not self._done.wait(self._every_s):
            self._beat()

    def _watch(self) -> None:
        pulse, seen, still_s, last = self.pulse, -1, 0.0, time.monotonic()
        while True:
            look_s = min(LOOK_S, pulse.limit_s / 10)
            if self._done.wait(look_s):
                return
            at = time.monotonic()
            # Count only the time in which this thread runs: a suspended job has not hung.
            still_s = still_s + min(at - last, 2 * look_s) if pulse.progress == seen else 0.0
            seen, last = pulse.progress, at
            if still_s > pulse.limit_s:
                self._expire(still_s)
                return

    def _expire(self, still_s: float) -> None:
        last_resort = threading.Timer(LAST_RESORT_S, self._end, [HangError.exit_code])
        last_resort.daemon = True
        last_resort.start()
        step, phase, limit_s = self.pulse.step, self.pulse.name, self.pulse.limit_s
        where = f"rank {self.info.rank} on {self.host} after step {step}: in {phase}"
        stacks = self._try_dump(where)
        self._done.wait(LINGER_S)  # time for the other ranks to dump and write their last heartbeats
        self._beat()
        beats = self._try_read()
        behind = lagging_ranks(beats)
        error = HangError(
            f"{where} for {still_s:.0f} s, longer than {limit_s:g} s. "
            f"Behind: {'; '.join(behind) or 'no rank more than the others'}. Stacks: {stacks}.",
            f"Continue with: {command_line('resume', self.run_dir)}",
        )
        logger.critical("%s", error)
        if is_lowest_reporting(beats, self.info.rank):
            with suppress(OSError, DataError), closing(EventLog(self.run_dir / EVENTS)) as events:
                events.add("hang", step=step, phase=phase, behind=behind)
        if self._on_hang is not None:
            self._on_hang(error)
        with suppress(OSError):  # a file on a full disk
            print(str(error), file=sys.stderr, flush=True)
        last_resort.cancel()
        self._end(error.exit_code)

    def _try_dump(self, where: str) -> Path | str:
        try:
            return self.dump(where)
        except OSError as error:  # a full or failing disk: the rank has to end all the same
            return f"not written ({error.strerror})"

    def _try_read(self) -> list[Heartbeat]:
        try:
            return read_heartbeats(self.run_dir)
        except DataError as error:  # the report lacks the other ranks then
            logger.warning("%s", error)
            return []

    def dump(self, where: str) -> Path:
        """Append the stacks of all threads to `logs/rank_0000r.hang` and return its path."""
        path = stacks_path(self.run_dir, self.info.rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{now()} {where}\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        return path
