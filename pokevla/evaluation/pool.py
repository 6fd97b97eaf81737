"""Worker processes with their pipes: started, watched, replaced when they die."""

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
    """One process, and the trial it is running."""

    process: BaseProcess
    connection: Connection
    running: RunTrial | None = None


@dataclass(frozen=True)
class Crash:
    """A worker ended in the middle of a trial."""

    reason: str


Report = Query | TrialDone | Crash


class WorkerPool:
    """`count` workers, made when first needed. Spawned, not forked: GL contexts and torch threads do not survive a
    fork."""

    def __init__(self, count: int, factory: EnvironmentFactory) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._factory = factory
        self.workers: list[Worker | None] = [None] * count

    def start_trial(self, slot: int, request: RunTrial) -> None:
        """Give `request` to the idle worker of `slot`, starting its process when there is none."""
        worker = self.workers[slot]
        if worker is None:
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=worker_main, args=(theirs, self._factory), daemon=True)
            with _one_thread_each():
                process.start()
            theirs.close()  # else the pipe would stay open after the worker's death
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
            return  # it has just died: `reports` sees the closed pipe

    def idle_slots(self) -> list[int]:
        """Slots without a running trial."""
        return [slot for slot, worker in enumerate(self.workers) if worker is None or worker.running is None]

    def reports(self, among: Sequence[int]) -> list[tuple[int, Report]]:
        """Wait until at least one of the slots `among` says something; what all those say who have spoken by then.

        Raises the worker's error when it refused (no such task, no GL library).
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
        worker.connection.close()  # an idle worker ends by itself at the closed pipe
        worker.process.join(JOIN_TIMEOUT_S if worker.running is None else 0.1)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        self.workers[slot] = None

    def close(self) -> None:
        """End all workers: idle ones by closing their pipe, those in the middle of a trial by a kill."""
        for slot in range(len(self.workers)):
            self._discard(slot)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Environment of a new worker: one thread for BLAS, numba and the software renderer, where the user says nothing.

    They are read when the libraries load, so they must be there before the process starts.
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
    """A pool that is closed whatever happens inside."""
    pool = WorkerPool(count, factory)
    try:
        yield pool
    finally:
        pool.close()
