"""Starts, watches and replaces the worker processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
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

LOOK_S = 1.0
"""Longest time between two looks at the clock. Only time in which this process runs counts: after Ctrl-Z and `fg` no
worker is blamed for the pause."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "LP_NUM_THREADS")


@dataclass
class Worker:
    """One worker process and its current trial."""

    process: BaseProcess
    connection: Connection
    running: RunTrial | None = None
    silent_s: float = 0.0
    """Seconds for which the main process has waited since its last message to this worker."""


@dataclass(frozen=True)
class Crash:
    """Report that a worker ended, or was killed because it hung, in the middle of a trial."""

    reason: str


Report = Query | TrialDone | Crash


class WorkerPool:
    """`count` workers, started when first needed. They are spawned, because GL contexts and torch threads do not
    survive a fork."""

    def __init__(self, count: int, factory: EnvironmentFactory, timeout_s: float) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._factory = factory
        self.timeout_s = timeout_s
        """How long a worker may take to answer one message before it is killed."""
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
        worker.silent_s = 0.0
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
        reports: list[tuple[int, Report]] = []
        while by_connection and not reports:
            started = time.monotonic()
            ready = wait(list(by_connection), timeout=LOOK_S)
            waited_s = min(time.monotonic() - started, 2 * LOOK_S)
            reports = [(by_connection[c], self._receive(by_connection[c])) for c in ready if isinstance(c, Connection)]
            silent = set(by_connection.values()) - {slot for slot, _ in reports}
            reports += [(slot, self._crash(slot, self._hung())) for slot in silent if self._has_hung(slot, waited_s)]
        return reports

    def _has_hung(self, slot: int, waited_s: float) -> bool:
        worker = self.workers[slot]
        if worker is None:
            return False
        worker.silent_s += waited_s
        return worker.silent_s > self.timeout_s

    def _hung(self) -> str:
        return f"the environment process has not answered for {self.timeout_s:g} s (worker_timeout_s) and was killed"

    def _receive(self, slot: int) -> Report:
        worker = self.workers[slot]
        if worker is None:
            raise RuntimeError(f"slot {slot} has no worker")
        hung = threading.Event()
        try:
            with _killed_unless_done(worker.process, self.timeout_s, hung):
                message = worker.connection.recv()
            if isinstance(message, Refused):
                raise message.error
            if not isinstance(message, Died):
                return message
            reason = message.reason
        except (EOFError, OSError):  # the pipe was closed, between two messages or in the middle of one
            reason = None
        worker.process.join(JOIN_TIMEOUT_S)
        if reason is None:
            code = worker.process.exitcode
            reason = self._hung() if hung.is_set() else f"the environment process ended with code {code}"
        return self._crash(slot, reason)

    def _crash(self, slot: int, reason: str) -> Crash:
        self._discard(slot)
        return Crash(reason)

    def _discard(self, slot: int) -> None:
        worker = self.workers[slot]
        if worker is None:
            return
        worker.connection.close()  # an idle worker ends when its pipe is closed
        worker.process.join(JOIN_TIMEOUT_S if worker.running is None else 0.1)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join(JOIN_TIMEOUT_S)  # not longer: one that waits for a dead file system cannot be killed
        self.workers[slot] = None

    def close(self) -> None:
        """End all workers: close the pipes of idle ones, kill those in the middle of a trial."""
        for slot in range(len(self.workers)):
            self._discard(slot)


@contextmanager
def _killed_unless_done(process: BaseProcess, timeout_s: float, hung: threading.Event) -> Iterator[None]:
    """Kill a process that hangs in the middle of a message, on which `recv` would wait for ever; sets `hung`."""

    def kill() -> None:
        hung.set()
        process.kill()

    guard = threading.Timer(timeout_s, kill)
    guard.daemon = True
    guard.start()
    try:
        yield
    finally:
        guard.cancel()


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
def worker_pool(count: int, factory: EnvironmentFactory, timeout_s: float) -> Iterator[WorkerPool]:
    """A pool that is closed when the block ends."""
    pool = WorkerPool(count, factory, timeout_s)
    try:
        yield pool
    finally:
        pool.close()
