"""Stops a run that was started on this machine."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import psutil

from monitoring.events import EventTally
from pokevla.errors import TrainingError, UsageError, command_line
from pokevla.runs.creation import LOCK, is_locked
from pokevla.telemetry.jsonl import EVENTS, EventLog
from pokevla.telemetry.manifest import read_manifest

POLL_S = 0.2
ENDS_WELL = ("finished", "stopped")


def stop_local_run(run_dir: Path, timeout_s: float) -> None:
    """Ask every rank of the run on this machine to end (SIGTERM), and wait until the run's lock is free.

    Raises:
        UsageError: the run is not being trained, or on another machine.
        TrainingError: it is still being trained after `timeout_s` seconds.
    """
    if not is_locked(run_dir):
        raise UsageError(
            f"{run_dir} is not being trained.", f"`{command_line('runs', 'show', run_dir)}` shows how it ended."
        )
    ranks = ranks_of(run_dir)
    if not ranks:
        manifest = read_manifest(run_dir)
        host = [manifest["start"], *manifest["restarts"]][-1]["host"]
        raise UsageError(
            f"{run_dir} is being trained by a process that is not on {socket.gethostname()}.",
            f"It was started on {host}: stop it there.",
        )
    for rank in ranks:
        with contextlib.suppress(psutil.NoSuchProcess):
            rank.terminate()
    deadline = time.monotonic() + timeout_s
    while is_locked(run_dir):
        if time.monotonic() > deadline:
            pids = ", ".join(str(rank.pid) for rank in ranks)
            raise TrainingError(
                f"{run_dir} is still being trained {timeout_s:.0f} s after it was asked to stop (processes {pids}).",
                "A rank stops after it has finished and saved its step. Wait, or kill these processes.",
            )
        time.sleep(POLL_S)
    _note_if_nobody_did(run_dir)


def _note_if_nobody_did(run_dir: Path) -> None:
    """Record `stopped` if no rank did: one that is stopped while it starts ends without an event or with an error."""
    tally = EventTally(run_dir)
    tally.refresh()
    if tally.last_turn is None or tally.last_turn["event"] not in ENDS_WELL:
        with contextlib.closing(EventLog(run_dir / EVENTS)) as events:
            events.add("stopped", reason="pokevla runs stop")


def ranks_of(run_dir: Path) -> list[psutil.Process]:
    """Processes of the run's ranks on this machine, recognised by the inherited run lock. Excludes their parent, which
    holds the lock too and ends when they do."""
    lock = str((run_dir / LOCK).resolve())
    holders: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if any(file.path == lock for file in process.open_files()):
                holders[process.pid] = process
    parents = set()
    for process in holders.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            parents.add(process.ppid())
    return [process for pid, process in holders.items() if pid not in parents]
