"""Starts one process per rank, without a launcher, and ends all of them when one dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pokevla.distributed.environment import choose_port
from pokevla.distributed.forwarding import SignalForwarder, signals_held_back
from pokevla.errors import Requeued, TrainingError
from pokevla.files.failures import FREE_SPACE, free_bytes
from pokevla.processes import end_with_parent

POLL_S = 0.2
"""Seconds between checks of the ranks. A dead rank is noticed within this time."""
STOP_TOGETHER_S = 60.0
"""Seconds for the other ranks to end after the first one has saved and stopped."""
PARENT_VARIABLE = "POKEVLA_PARENT_PID"
FULL_BYTES = 4096
"""A disk with less free space than a block is full."""
_NAMED = (2, 3, 4)  # exit codes of errors that say what to do
_NO_FAILURE = (None, 0, Requeued.exit_code)


def rank_environment(
    rank: int, world_size: int, port: int, threads: int, base: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Environment of one local rank."""
    environment = dict(base)
    environment |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(threads),
        # Idle OMP threads must sleep: spinning ones take the cores from the other ranks.
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONUNBUFFERED": "1",
        PARENT_VARIABLE: str(os.getpid()),
    }
    return environment


def die_with_parent() -> None:
    """Have the kernel kill this rank when its parent dies, even by SIGKILL. Called first in a rank.

    Otherwise a killed `pokevla train` would leave ranks that write to the run while `pokevla resume` reads it.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or not sys.platform.startswith("linux"):
        return
    end_with_parent()
    if os.getppid() != int(parent):  # it died before the call above
        os.kill(os.getpid(), signal.SIGKILL)


def rank_log(log_dir: Path, rank: int) -> Path:
    """File for the raw output of rank r: tracebacks and prints of libraries. Its log is `rank_0000r.log`."""
    return log_dir / f"rank_{rank:05d}.out"


def spawn_ranks(
    arguments: Sequence[str],
    *,
    world_size: int,
    threads: int,
    log_dir: Path,
    environment: Mapping[str, str] = os.environ,
    keep_open: Sequence[int] = (),
    on_poll: Callable[[], None] | None = None,
    on_signal: Callable[[str], None] | None = None,
    grace_s: float = 600.0,
) -> None:
    """Run `python ARGUMENTS` once per rank and wait for all of them.

    SIGTERM, SIGUSR2 and SIGINT are forwarded to the ranks, which start with them blocked and unblock them once they
    have handlers.

    Args:
        arguments: arguments of this Python interpreter, e.g. ("-m", "pokevla.training.rank_main", "runs/x").
        threads: OMP threads of each rank.
        log_dir: output of rank r is appended to `rank_0000r.out` there.
        keep_open: file descriptors the ranks inherit (the lock of the run).
        on_poll: called about every POLL_S seconds, for a progress display.
        on_signal: receives a sentence when a signal is forwarded.
        grace_s: seconds for the ranks to end after a signal.

    Raises:
        EnvironmentSetupError: MASTER_PORT is in use.
        Requeued: the ranks were asked to stop, and ended with its exit code.
        TrainingError: a rank failed, or did not end within the grace time. All others have been killed. Has the exit
            code of the rank.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    port = choose_port(environment)
    with contextlib.ExitStack() as stack:
        ranks: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, ranks)
        forwarder = stack.enter_context(SignalForwarder(ranks, grace_s, on_signal))
        for rank in range(world_size):
            log = stack.enter_context(rank_log(log_dir, rank).open("ab"))
            with signals_held_back():
                process = subprocess.Popen(
                    [sys.executable, *arguments],
                    env=rank_environment(rank, world_size, port, threads, environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=tuple(keep_open),
                )
            ranks.append(process)
        _watch(ranks, log_dir, forwarder, on_poll)


def _watch(
    ranks: Sequence[subprocess.Popen[bytes]],
    log_dir: Path,
    forwarder: SignalForwarder,
    on_poll: Callable[[], None] | None,
) -> None:
    """Wait until all ranks have ended; raises as `spawn_ranks`."""
    first_stopped: float | None = None
    while any(process.poll() is None for process in ranks):
        _raise_if_dead(ranks, log_dir)
        forwarder.forward()
        if on_poll is not None:
            on_poll()
        if _stopped(ranks):
            first_stopped = first_stopped or time.monotonic()
            if time.monotonic() > first_stopped + STOP_TOGETHER_S:
                raise TrainingError(f"One rank has stopped, the others have not within {STOP_TOGETHER_S:g} s.")
        time.sleep(POLL_S)
    _raise_if_dead(ranks, log_dir)
    if on_poll is not None:
        on_poll()
    if _stopped(ranks):
        raise Requeued("The ranks have saved and stopped.")


def _stopped(ranks: Sequence[subprocess.Popen[bytes]]) -> bool:
    return any(process.poll() == Requeued.exit_code for process in ranks)


def _raise_if_dead(ranks: Sequence[subprocess.Popen[bytes]], log_dir: Path) -> None:
    failed = [(rank, code) for rank, process in enumerate(ranks) if (code := process.poll()) not in _NO_FAILURE]
    if not failed:
        return
    # A rank that raised a named error is the cause; the others only lost their connection to it.
    rank, code = min(failed, key=lambda item: (item[1] not in _NAMED, item[0]))
    assert code is not None
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    log = rank_log(log_dir, rank)
    error = TrainingError(f"Rank {rank} {how}; all ranks were stopped. {_what_log_says(log)}")
    error.exit_code = code if code in _NAMED else TrainingError.exit_code
    raise error


def _what_log_says(log: Path) -> str:
    """The end of a log; a warning if the disk is full, because what the rank printed last is not in it then."""
    ending = f"{log} ends: {last_line(log)}"
    if free_bytes(log) >= FULL_BYTES:
        return ending
    return f"The disk of {log.parent} is full, so the log may lack the reason. {FREE_SPACE} {ending}"


def last_line(path: Path) -> str:
    """Last non-blank line of a log, or a note that there is none."""
    tail = path.read_bytes()[-8192:].decode(errors="replace") if path.is_file() else ""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1] if lines else "(nothing written)"


def _end(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill every rank that still runs: without the others it cannot save, and a hung one ignores SIGTERM."""
    for process in _alive(ranks):
        process.kill()
    for process in ranks:
        process.wait()


def _alive(ranks: Sequence[subprocess.Popen[bytes]]) -> Iterator[subprocess.Popen[bytes]]:
    return (process for process in ranks if process.poll() is None)
