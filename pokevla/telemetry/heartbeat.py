"""Heartbeats: one small file per rank with its step and phase. Together they show which rank is behind.

    RUN/heartbeat/rank_00000.json    rewritten every `every_s` seconds by a thread of the rank

A rank whose file is old is dead, stopped, or on a host that does not answer. Among ranks with fresh files the one with
the least `progress` is behind: all ranks go through the same phases, and the others wait for it.

Clocks of hosts may differ by minutes. The age of a file follows from the file system's time stamps, which come from one
clock for all hosts.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pokevla.errors import DataError
from pokevla.files.records import as_type
from pokevla.files.texts import read_json_object, write_json
from pokevla.telemetry.jsonl import now
from pokevla.telemetry.logging import list_stacks

FOLDER = "heartbeat"
ENDED = ("finished", "stopped", "failed")
"""Phases after which no heartbeat follows."""
_FILES = f"rank_{'[0-9]' * 5}.json"
_MAX_BYTES = 1 << 16
SILENT_AFTER = 3.0
"""Intervals without a heartbeat after which a rank counts as silent."""


@dataclass(frozen=True)
class Heartbeat:
    """Step and phase of one rank."""

    rank: int
    host: str
    pid: int
    step: int  # steps done
    phase: str
    phase_s: float  # time in this phase so far
    progress: int  # phases started and ended since the start
    every_s: float  # time until the next heartbeat is due
    time: str  # UTC, ISO 8601; when read from a file, by the file system's clock

    def age_s(self, at: datetime) -> float:
        """Seconds since it was written."""
        return (at - datetime.fromisoformat(self.time)).total_seconds()


def beat(run_dir: Path, *, rank: int, host: str, step: int, phase: str, phase_s: float, progress: int,
         every_s: float) -> Heartbeat:  # fmt: skip
    """Write this process's heartbeat. A reader sees the old one or the new one, never a partial one."""
    written = Heartbeat(rank, host, os.getpid(), step, phase, round(phase_s, 1), progress, every_s, now())
    write_json(run_dir / FOLDER / f"rank_{rank:05d}.json", asdict(written), indent=None, durable=False)
    return written


def read_heartbeats(run_dir: Path) -> list[Heartbeat]:
    """The last heartbeat of every rank, by rank; none if the run has never started. DataError if one is damaged."""
    return [_read(path) for path in sorted((run_dir / FOLDER).glob(_FILES))]


def _read(path: Path) -> Heartbeat:
    content = read_json_object(path, max_bytes=_MAX_BYTES, remedy="Delete it.")
    beat = as_type(content, Heartbeat, path, remedy="Delete it.")
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return replace(beat, time=written.isoformat(timespec="milliseconds"))


def newest_beat_s(run_dir: Path) -> float | None:
    """Time stamp of the newest heartbeat file, by the file system's clock; None without any."""
    times = []
    for path in (run_dir / FOLDER).glob(_FILES):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return max(times, default=None)


def remove_heartbeats(run_dir: Path, world_size: int) -> None:
    """Remove heartbeats of ranks from `world_size` on, left by an earlier job with more ranks."""
    for path in (run_dir / FOLDER).glob(_FILES):
        if int(path.stem.removeprefix("rank_")) >= world_size:
            with contextlib.suppress(OSError):  # it is only out of date
                path.unlink()


def lagging_ranks(beats: Sequence[Heartbeat], at: datetime | None = None) -> list[str]:
    """One sentence for each rank that the others wait for; none if all have the same progress.

    Ages are relative to `at` (default: the newest heartbeat, for a rank that has just written its own).
    """
    running = [one for one in beats if one.phase not in ENDED]
    at, silent = _silent(beats, at)
    if silent:
        return [
            f"rank {one.rank} on {one.host}: no heartbeat for {one.age_s(at):.0f} s, last in {one.phase} after step "
            f"{one.step} (dead, stopped, or its host does not answer)"
            for one in silent
        ]
    least = min((one.progress for one in running), default=0)
    if all(one.progress == least for one in running):
        return []
    return [
        f"rank {one.rank} on {one.host}: in {one.phase} after step {one.step} for {one.phase_s:.0f} s"
        for one in running
        if one.progress == least
    ]


def reporting_elsewhere(beats: Sequence[Heartbeat], at: datetime) -> list[Heartbeat]:
    """Fresh heartbeats of running ranks on other machines than this one."""
    here = socket.gethostname()
    running = [one for one in beats if one.host != here and one.phase not in ENDED]
    return [one for one in running if one.age_s(at) <= SILENT_AFTER * one.every_s]


def is_lowest_reporting(beats: Sequence[Heartbeat], rank: int) -> bool:
    """Whether `rank` is the lowest rank that is not silent: rank 0, unless rank 0 is the one that hangs."""
    silent = {one.rank for one in _silent(beats)[1]}
    return rank == min((one.rank for one in beats if one.rank not in silent), default=rank)


def _silent(beats: Sequence[Heartbeat], at: datetime | None = None) -> tuple[datetime, list[Heartbeat]]:
    """Reference time, and the heartbeats of running ranks that are older than SILENT_AFTER intervals."""
    newest = max((datetime.fromisoformat(one.time) for one in beats), default=datetime.now(UTC))
    at = max(at or newest, newest)  # this machine's clock may be behind the file system's
    running = [one for one in beats if one.phase not in ENDED]
    return at, [one for one in running if one.age_s(at) > SILENT_AFTER * one.every_s]


def hang_report(run_dir: Path) -> str:
    """Step and phase of every rank, and which of them is behind. For a run that makes no progress.

    Raises:
        DataError: the run has no heartbeats, or a damaged one.
    """
    beats, at = read_heartbeats(run_dir), datetime.now(UTC)
    if not beats:
        raise DataError(f"{run_dir} has no heartbeats.", "Is it the directory of a run that has started?")
    lines = [
        f"rank {one.rank} on {one.host} (pid {one.pid}): step {one.step}, {one.phase} for {one.phase_s:.0f} s, "
        f"heartbeat {one.age_s(at):.0f} s ago"
        for one in beats
    ]
    behind = lagging_ranks(beats, at)
    verdict = [f"behind: {text}" for text in behind] or ["no rank is behind the others"]
    if len(beats) > 1 and len(behind) == len(beats) and not lagging_ranks(beats):
        verdict = ["all ranks are silent: the job has ended, or this machine's clock is ahead of the file system's"]
    return "\n".join([*lines, *verdict, *(f"stacks: {path}" for path in list_stacks(run_dir))])
