"""Start one process per rank, without a launcher, and let none of them outlive another's death."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pokevla.distributed.environment import choose_port
from pokevla.errors import TrainingError

POLL_S = 0.2
"""Seconds between looks at the ranks. A dead rank is noticed within this time."""
GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL for the ranks that are left."""
PARENT_VARIABLE = "POKEVLA_PARENT_PID"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


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
    """Called first thing in a rank: the kernel kills it when its parent dies, even by SIGKILL.

    Otherwise a killed `pokevla train` would leave ranks that write into the run while `pokevla resume` reads it.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the call above
        os.kill(os.getpid(), signal.SIGKILL)


def rank_log(log_dir: Path, rank: int) -> Path:
    """Where the raw output of a rank goes: tracebacks and what libraries print. Its log proper is `rank_0000r.log`."""
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
) -> None:
    """Run `python ARGUMENTS` once per rank and wait for all of them.

    Args:
        arguments: arguments of this Python interpreter, e.g. ("-m", "pokevla.training.rank_main", "runs/x").
        threads: OMP threads of each rank.
        log_dir: output of rank r is appended to `rank_0000r.out` there.
        keep_open: file descriptors the ranks inherit (the lock of the run).
        on_poll: called about every POLL_S seconds, for a progress display.

    Raises:
        EnvironmentSetupError: MASTER_PORT is in use.
        TrainingError: a rank ended with an error. All others have been ended. Its exit code is the rank's.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    port = choose_port(environment)
    with contextlib.ExitStack() as stack:
        ranks: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, ranks)
        for rank in range(world_size):
            log = stack.enter_context(rank_log(log_dir, rank).open("ab"))
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env=rank_environment(rank, world_size, port, threads, environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(keep_open),
            )
            ranks.append(process)
        while any(process.poll() is None for process in ranks):
            _raise_if_dead(ranks, log_dir)
            if on_poll is not None:
                on_poll()
            time.sleep(POLL_S)
        _raise_if_dead(ranks, log_dir)
        if on_poll is not None:
            on_poll()


def _raise_if_dead(ranks: Sequence[subprocess.Popen[bytes]], log_dir: Path) -> None:
    failed = [(rank, process.poll()) for rank, process in enumerate(ranks) if process.poll()]
    if not failed:
        return
    # A rank that raised a named error says why; those that lost their connection to it only follow.
    rank, code = min(failed, key=lambda item: (item[1] not in (2, 3, 4, 75), item[0]))
    assert code is not None
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    log = rank_log(log_dir, rank)
    error = TrainingError(f"Rank {rank} {how}; all ranks were stopped. {log} ends: {last_line(log)}")
    error.exit_code = code if code in (2, 3, 4, 75) else TrainingError.exit_code
    raise error


def last_line(path: Path) -> str:
    """Last line of a log that is not blank, or a note that there is none."""
    tail = path.read_bytes()[-8192:].decode(errors="replace") if path.is_file() else ""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1] if lines else "(nothing written)"


def _end(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """End every rank that still runs."""
    for process in _alive(ranks):
        process.terminate()
    deadline = time.monotonic() + GRACE_S
    for process in _alive(ranks):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0.01))
    for process in _alive(ranks):
        process.kill()
        process.wait()


def _alive(ranks: Sequence[subprocess.Popen[bytes]]) -> Iterator[subprocess.Popen[bytes]]:
    return (process for process in ranks if process.poll() is None)
