"""Starts, watches and replaces the worker processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from pokevla.evaluation.worker import (
    Actions,
    Died,
    EnvironmentFactory,
    Query,
    Refused,
    RunTrial,
    TrialDone,
    worker_main,
)

JOIN_TIMEOUT_S = 30.0
"""How long a worker may take to close its environment before it is killed."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "LP_NUM_THREADS")


@dataclass
class Worker:
    """One worker process and its current trial."""

    process: BaseProcess
    connection: Connection
    running: RunTrial | None = None


@dataclass(frozen=True)
class Crash:
    """Report that a worker ended in the middle of a trial."""

    reason: str


Report = Query | TrialDone | Crash


class WorkerPool:
    """`count` workers, started when first needed. They are spawned, because GL contexts and torch threads do not
    survive a fork."""

    def __init__(self, count: int, factory: EnvironmentFactory) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._factory = factory
        self.workers: list[Worker | None] = [None] * count

    def start_trial(self, slot: int, request: RunTrial) -> None:
        """Send `request` to the idle worker of `slot`; starts its process if there is none."""
        worker = self.workers[slot]
        if worker is None:
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=worker_main, args=(theirs, self._factory), daemon=True)
            with _one_thread_each():
                process.start()
            theirs.close()  # otherwise the pipe would stay open after the worker dies
            worker = self.workers[slot] = Worker(process, ours)
        worker.running = request
        self._send(worker, request)

    def send_actions(self, slot: int, actions: Actions) -> None:
        """Answer the query of the worker in `slot`."""
        worker = self.workers[slot]
        if worker is not None:
            self._send(worker, actions)

    def _send(self, worker: Worker, message: RunTrial | Actions) -> None:
        try:
            worker.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return  # it has just died: `reports` detects the closed pipe

    def idle_slots(self) -> list[int]:
        """Slots without a running trial."""
        return [slot for slot, worker in enumerate(self.workers) if worker is None or worker.running is None]

    def reports(self, among: Sequence[int]) -> list[tuple[int, Report]]:
        """Wait for a report from at least one of the slots `among`; returns all reports received by then.

        Raises the worker's error if it sent `Refused` (no such task, no GL library).
        """
        by_connection = {worker.connection: slot for slot in among if (worker := self.workers[slot]) is not None}
        wait(list(by_connection))
        ready = wait(list(by_connection), timeout=0)
        return [(by_connection[c], self._receive(by_connection[c])) for c in ready if isinstance(c, Connection)]

    def _receive(self, slot: int) -> Report:
        worker = self.workers[slot]
        if worker is None:
            raise RuntimeError(f"slot {slot} has no worker")
        reason = None
        try:
            message = worker.connection.recv()
            if isinstance(message, Refused):
                raise message.error
            if not isinstance(message, Died):
                return message
            reason = message.reason
        except (EOFError, ConnectionResetError):
            pass
        worker.process.join(JOIN_TIMEOUT_S)
        self._discard(slot)
        return Crash(reason or f"the environment process ended with code {worker.process.exitcode}")

    def _discard(self, slot: int) -> None:
        worker = self.workers[slot]
        if worker is None:
            return
        worker.connection.close()  # an idle worker ends when its pipe is closed
        worker.process.join(JOIN_TIMEOUT_S if worker.running is None else 0.1)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        self.workers[slot] = None

    def close(self) -> None:
        """End all workers: close the pipes of idle ones, kill those in the middle of a trial."""
        for slot in range(len(self.workers)):
            self._discard(slot)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Limit BLAS, numba and the software renderer of a new worker to one thread, unless the user has set a number.

    The libraries read these variables when they load, so they must be set before the process starts.
    """
    added = [name for name in THREAD_VARIABLES if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def worker_pool(count: int, factory: EnvironmentFactory) -> Iterator[WorkerPool]:
    """A pool that is closed when the block ends."""
    pool = WorkerPool(count, factory)
    try:
        yield pool
    finally:
        pool.close()
