"""Processes that convert episodes to parts. A crash or hang of a decoder costs one episode, not the conversion."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from pokevla.data.recordings.episode import Source
from pokevla.data.recordings.faults import Fault
from pokevla.data.recordings.making import PartSettings, make_part, refuse_episode
from pokevla.errors import EnvironmentSetupError, PokeVLAError
from pokevla.processes import end_with_parent

_START_TIMEOUT_S = 300.0
_GRACE_S = 5.0


@dataclass
class _Worker:
    """A process, and what it is doing."""

    process: BaseProcess
    pipe: Connection
    number: int | None = None
    """The episode in work; None while it starts."""
    deadline_s: float = 0.0


def run_parts(
    source: Source,
    settings: PartSettings,
    folder: Path,
    numbers: Sequence[int],
    workers: int,
    timeout_s: float,
) -> Generator[int]:
    """Make the parts of the episodes `numbers` in `folder`; yields each number once its part is there, in any order.

    Args:
        workers: number of processes; 0: in this process, where a crash of a decoder is fatal.
        timeout_s: how long one episode may take before it counts as damaged.

    Raises:
        DiskFullError: disk full.
        EnvironmentSetupError: writing failed otherwise, or processes do not start.
    """
    if workers == 0:
        with source.opened() as read:
            for number in numbers:
                make_part(read, source, number, settings, folder)
                yield number
        return
    waiting = list(reversed(numbers))
    running = [_start(source, settings, folder) for _ in range(min(workers, len(numbers)))]
    try:
        while running:
            now = time.monotonic()
            limit = max(0.0, min(worker.deadline_s for worker in running) - now)
            ready = wait([worker.pipe for worker in running], limit)
            for worker in list(running):
                late = time.monotonic() >= worker.deadline_s and worker.pipe not in ready
                if worker.pipe not in ready and not late:
                    continue
                done = worker.number
                problem = "it did not answer in time" if late else _answer(worker)
                if problem is not None:
                    _end(worker)
                    running.remove(worker)
                    if done is None:
                        raise EnvironmentSetupError(
                            f"A process of the conversion does not start: {problem}.", "Try --workers 0 to see why."
                        )
                    name = source.episode_name(done)
                    why = f"{name}: the process that read it failed: {problem}."
                    refuse_episode(folder, done, Fault("crashed", why))
                    if waiting:
                        running.append(_start(source, settings, folder))
                elif waiting:
                    _give(worker, waiting.pop(), timeout_s)
                else:
                    _end(worker)
                    running.remove(worker)
                if done is not None:
                    yield done
    finally:
        for worker in running:
            _end(worker)


def _start(source: Source, settings: PartSettings, folder: Path) -> _Worker:
    context = multiprocessing.get_context("spawn")  # pyarrow and decoders have threads, which do not survive a fork
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, source, settings, folder), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here, None, time.monotonic() + _START_TIMEOUT_S)


def _give(worker: _Worker, number: int, timeout_s: float) -> None:
    worker.number, worker.deadline_s = number, time.monotonic() + timeout_s
    try:
        worker.pipe.send(number)
    except (BrokenPipeError, ConnectionResetError):  # noticed at the next wait
        return


def _answer(worker: _Worker) -> str | None:
    """Take the answer of a worker; what happened if it died without one. Raises the error that it could not handle."""
    try:
        error = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join(_GRACE_S)
        code = worker.process.exitcode
        return "no exit code" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
    if error is not None:
        raise error
    return None


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.join(_GRACE_S)


def _serve(pipe: Connection, source: Source, settings: PartSettings, folder: Path) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    try:
        with source.opened() as read:
            pipe.send(None)
            while True:
                _reply(pipe, lambda n: make_part(read, source, n, settings, folder))
    except PokeVLAError as error:
        pipe.send(type(error)(error.message, error.remedy))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nothing more to do


def _reply(pipe: Connection, work: Callable[[int], None]) -> None:
    number = pipe.recv()
    try:
        work(number)
    except PokeVLAError as error:
        pipe.send(type(error)(error.message, error.remedy))  # without its cause, which may not survive pickling
    else:
        pipe.send(None)
