"""Processes that make the parts of a conversion. A crash or hang of a decoder costs one part, not the conversion."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from pokevla.errors import EnvironmentSetupError, PokeVLAError
from pokevla.processes import end_with_parent

_START_TIMEOUT_S = 300.0
_GRACE_S = 5.0


class Work(Protocol):
    """Makes parts by their numbers. Each process has its own copy, made by pickling."""

    def opened(self) -> AbstractContextManager[Callable[[int], None]]:
        """Open what is read, for one process; the function stores the part of a number.

        The function raises DiskFullError or EnvironmentSetupError if the part cannot be written. What is wrong with
        the input it stores in the part.
        """
        ...

    def crashed(self, number: int, problem: str) -> None:
        """Store that the process that made part `number` died, or did not answer in time."""
        ...


@dataclass
class _Worker:
    """A process, and what it is doing."""

    process: BaseProcess
    pipe: Connection
    number: int | None = None
    """The part in work; None while it starts."""
    deadline_s: float = 0.0


def run_parts(work: Work, numbers: Sequence[int], workers: int, timeout_s: float) -> Generator[int]:
    """Make the parts `numbers`; yields each number once its part is there, in any order.

    Args:
        workers: number of processes; 0: in this process, where a crash of a decoder is fatal.
        timeout_s: how long one part may take before its process is ended.

    Raises:
        DiskFullError: disk full.
        EnvironmentSetupError: writing failed otherwise, or processes do not start.
    """
    if workers == 0:
        with work.opened() as make:
            for number in numbers:
                make(number)
                yield number
        return
    waiting = list(reversed(numbers))
    running = [_start(work) for _ in range(min(workers, len(numbers)))]
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
                    work.crashed(done, problem)
                    if waiting:
                        running.append(_start(work))
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


def _start(work: Work) -> _Worker:
    context = multiprocessing.get_context("spawn")  # pyarrow and decoders have threads, which do not survive a fork
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, work), daemon=True)
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


def _serve(pipe: Connection, work: Work) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    try:
        with work.opened() as make:
            pipe.send(None)
            while True:
                _reply(pipe, make)
    except PokeVLAError as error:
        pipe.send(type(error)(error.message, error.remedy))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nothing more to do


def _reply(pipe: Connection, make: Callable[[int], None]) -> None:
    number = pipe.recv()
    try:
        make(number)
    except PokeVLAError as error:
        pipe.send(type(error)(error.message, error.remedy))  # without its cause, which may not survive pickling
    else:
        pipe.send(None)
