"""Starts, watches and replaces the worker processes."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from pokevla.errors import EnvironmentSetupError, PokeVLAError
from pokevla.evaluation.running.messages import Actions, Died, Loaded, Query, Refused, RunTrial, TrialDone
from pokevla.evaluation.running.places import Place
from pokevla.evaluation.running.worker import EnvironmentFactory, worker_main

JOIN_TIMEOUT_S = 30.0
"""How long a worker may take to close its environment before it is killed."""

LOOK_S = 1.0
"""Longest time between two looks at the clock. Only time in which this process runs counts: after Ctrl-Z and `fg` no
worker is blamed for the pause."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "LP_NUM_THREADS")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How long a worker may be silent before it is killed, in seconds, and how often it is replaced."""

    load_s: float = 600.0
    """To build an environment, and to reset it."""
    step_s: float = 60.0
    """To execute one action."""
    trials_per_process: int = 200
    """Then a fresh process takes over, which bounds the memory that a simulator may leak."""


@dataclass
class Worker:
    """One worker process and its current trial."""

    process: BaseProcess
    connection: Connection
    place: Place
    running: RunTrial | None = None
    trials: int = 0
    """Started in this process."""
    silent_s: float = 0.0
    """Seconds for which the main process has waited since its last message to this worker."""
    limit_s: float = 0.0
    limit_name: str = ""
    """Which recipe field the limit comes from."""


@dataclass(frozen=True)
class Crash:
    """Report that a worker ended, or was killed because it hung, in the middle of a trial."""

    reason: str
    blames_trial: bool = True
    """False if rendering could not start on this worker's GPU: any trial would have ended like this."""


Report = Query | TrialDone | Crash


class WorkerPool:
    """One worker for each place, started when first needed. They are spawned, because GL contexts and torch threads do
    not survive a fork."""

    def __init__(self, places: Sequence[Place], factory: EnvironmentFactory, limits: Limits) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._factory = factory
        self.limits = limits
        self._places = list(places)
        self._unusable: set[str] = set()
        """GPUs on which rendering could not start."""
        self.workers: list[Worker | None] = [None] * len(places)

    def start_trial(self, slot: int, request: RunTrial) -> None:
        """Send `request` to the idle worker of `slot`; starts its process if there is none."""
        worker = self.workers[slot]
        if worker is not None and worker.trials >= self.limits.trials_per_process:
            self._discard(slot)
            worker = None
        if worker is None:
            worker = self.workers[slot] = self._start(self._places[slot])
        worker.running = request
        worker.trials += 1
        self._send(worker, request, self.limits.load_s, "worker_timeout_s")

    def _start(self, place: Place) -> Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=worker_main, args=(theirs, self._factory), daemon=True)
        with _environment(dict.fromkeys(THREAD_VARIABLES, "1"), place.variables):
            process.start()
        theirs.close()  # otherwise the pipe would stay open after the worker dies
        if place.cores and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it has died already: `reports` will see that
                os.sched_setaffinity(process.pid, place.cores)
        return Worker(process, ours, place)

    def send_actions(self, slot: int, actions: Actions) -> None:
        """Answer the query of the worker in `slot`."""
        worker = self.workers[slot]
        if worker is not None:
            self._send(worker, actions, self.limits.step_s * max(1, len(actions)), "step_timeout_s")

    def _send(self, worker: Worker, message: RunTrial | Actions, limit_s: float, limit_name: str) -> None:
        worker.silent_s, worker.limit_s, worker.limit_name = 0.0, limit_s, limit_name
        try:
            worker.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return  # it has just died: `reports` detects the closed pipe

    def release(self, slot: int) -> None:
        """The trial of the worker in `slot` has ended; it can take another one."""
        worker = self.workers[slot]
        if worker is not None:
            worker.running = None

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
            heard = {by_connection[c] for c in ready if isinstance(c, Connection)}
            received = [(slot, self._receive(slot)) for slot in sorted(heard)]
            reports = [(slot, report) for slot, report in received if report is not None]
            for slot in sorted(set(by_connection.values()) - heard):
                if self._has_hung(slot, waited_s):
                    reports.append((slot, self._crash(slot, self._hung(slot))))
        return reports

    def _has_hung(self, slot: int, waited_s: float) -> bool:
        worker = self.workers[slot]
        if worker is None:
            return False
        worker.silent_s += waited_s
        return worker.silent_s > worker.limit_s

    def _hung(self, slot: int) -> str:
        worker = self.workers[slot]
        limit_s, name = (worker.limit_s, worker.limit_name) if worker is not None else (0.0, "")
        return f"the environment process has not answered for {limit_s:g} s ({name}) and was killed"

    def _receive(self, slot: int) -> Report | None:
        """The message of a worker; None if it only says that its environment is built."""
        worker = self.workers[slot]
        if worker is None:
            raise RuntimeError(f"slot {slot} has no worker")
        hung = threading.Event()
        try:
            with _killed_unless_done(worker.process, worker.limit_s, hung):
                message = worker.connection.recv()
            if isinstance(message, Loaded):
                worker.silent_s = 0.0
                return None
            if isinstance(message, Refused):
                return self._refused(slot, worker.place, message.error)
            if not isinstance(message, Died):
                return message
            reason = message.reason
        except (EOFError, OSError):  # the pipe was closed, between two messages or in the middle of one
            reason = None
        worker.process.join(JOIN_TIMEOUT_S)
        if reason is None:
            code = worker.process.exitcode
            reason = self._hung(slot) if hung.is_set() else f"the environment process ended with code {code}"
        return self._crash(slot, reason)

    def _refused(self, slot: int, place: Place, error: PokeVLAError) -> Crash:
        """Go on without a GPU on which rendering cannot start, as long as another one is left; else raise the error."""
        usable = [other for other in self._places if other.gpu != place.gpu and other.gpu not in self._unusable]
        if place.gpu is None or not isinstance(error, EnvironmentSetupError) or not usable:
            raise error
        if place.gpu not in self._unusable:
            self._unusable.add(place.gpu)
            logger.warning("rendering cannot start on GPU %s, its workers go to others: %s", place.gpu, error.message)
        moved = [other for other in usable if other.gpu is not None]
        for number, former in enumerate(self._places):
            if former.gpu == place.gpu:
                new = moved[number % len(moved)]
                self._places[number] = dataclasses.replace(former, gpu=new.gpu, variables=new.variables)
        crash = self._crash(slot, error.message)
        return dataclasses.replace(crash, blames_trial=False)

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
def _environment(defaults: Mapping[str, str], fixed: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for a process that starts in the block. Libraries read them when they load.

    `defaults` limit BLAS, numba and the software renderer to one thread, unless the user has set a number; `fixed` are
    set in any case.
    """
    changed = {name: value for name, value in defaults.items() if name not in os.environ} | dict(fixed)
    former = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def worker_pool(places: Sequence[Place], factory: EnvironmentFactory, limits: Limits) -> Iterator[WorkerPool]:
    """A pool with one worker in each place, closed when the block ends."""
    pool = WorkerPool(places, factory, limits)
    try:
        yield pool
    finally:
        pool.close()
