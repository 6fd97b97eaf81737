"""Simulator processes that return the results of jobs in order, whatever the number of processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from pokevla.errors import PokeVLAError, SimulationError
from pokevla.processes import end_with_parent
from pokevla.simulation.simulator import load_simulator

# A job: (number) -> result. Built inside the worker, so that environments and GL contexts are its own.
Work = Callable[[int], Any]
_GRACE_S = 10.0
JOB_TIMEOUT_S = 1800.0
"""How long to wait for the next result. A demonstration with all its attempts takes minutes on a busy machine."""
_AHEAD = 2  # jobs per worker that may be started or done before their result is consumed: results are large


def run_ordered(
    build: Callable[..., Work],
    arguments: tuple[Any, ...],
    num_jobs: int,
    workers: int,
    timeout_s: float = JOB_TIMEOUT_S,
) -> Generator[Any, None, None]:
    """Yield the results of jobs 0, 1, ... num_jobs - 1 in this order, computed by `workers` processes.

    Each process calls `build(*arguments)` once and then the returned function for each job number. Few results wait in
    memory: each worker is at most two jobs ahead of the consumer. Closing the iterator early stops the processes.
    Raises what a job raised, SimulationError if a process died or none answers for `timeout_s` seconds, and
    EnvironmentSetupError before any is started if the simulator or its GL library cannot be loaded.
    """
    load_simulator()  # fail early and once if GL or the simulator is missing
    # Neither a GL context nor MuJoCo's threads survive a fork of this process. A fork server lives as long as its
    # workers, so that these would not notice the death of this process.
    context = multiprocessing.get_context("spawn")
    processes, pipes = [], []
    for _ in range(max(1, min(workers, num_jobs))):
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, build, arguments), daemon=True)
        process.start()
        there.close()
        processes.append(process)
        pipes.append(here)
    try:
        yield from _dispatch(pipes, num_jobs, timeout_s)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.terminate()
            process.join(_GRACE_S)
            process.kill()  # a hung one; otherwise the interpreter would wait for it at its exit


def _dispatch(pipes: list[Connection], num_jobs: int, timeout_s: float) -> Iterator[Any]:
    results: dict[int, Any] = {}
    idle = list(pipes)
    sent = 0
    for position in range(num_jobs):
        while True:
            while idle and sent < min(num_jobs, position + _AHEAD * len(pipes)):
                _send(idle.pop(0), sent)
                sent += 1
            if position in results:
                break
            ready = cast("list[Connection]", wait(pipes, timeout_s))  # an idle worker sends nothing unless it has died
            if not ready:
                raise SimulationError(
                    f"No simulator process has answered for {timeout_s:g} s, while job {position} is due: it hangs.",
                    "Run it again with one worker to see its output.",
                )
            for pipe in ready:
                number, answer = _receive(pipe)
                results[number] = answer
                idle.append(pipe)
        result = results.pop(position)
        if isinstance(result, Exception):
            raise result
        yield result


def _send(pipe: Connection, number: int) -> None:
    try:
        pipe.send(number)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise _died() from error


def _receive(pipe: Connection) -> tuple[int, Any]:
    try:
        return pipe.recv()
    except (EOFError, OSError) as error:  # between two results, or in the middle of one
        raise _died() from error


def _died() -> SimulationError:
    return SimulationError(
        "A simulator process died without a message (killed, out of memory, or a GL crash).",
        "Try fewer workers (each needs 1 to 2 GB), or one worker to see its output.",
    )


def _serve(pipe: Connection, build: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
    end_with_parent()  # a job takes minutes, and only at its end would the closed pipe be noticed
    # One process per core: llvmpipe's own threads would only take turns with the other workers.
    os.environ.setdefault("LP_NUM_THREADS", "1")
    try:
        work = build(*arguments)
        while True:
            number = pipe.recv()
            try:
                pipe.send((number, work(number)))
            except PokeVLAError as error:
                pipe.send((number, _plain(error)))
    except PokeVLAError as error:
        pipe.send((pipe.recv(), _plain(error)))
    except (EOFError, BrokenPipeError):
        return  # the parent needs no more results


def _plain(error: PokeVLAError) -> PokeVLAError:
    """The error without its cause, which may not survive pickling."""
    return type(error)(error.message, error.remedy)
