"""Worker process that owns an environment, runs trials and queries the main process for actions.

It does not import torch, which would cost memory and threads. See `pokevla.evaluation.running.messages`.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np

from pokevla.errors import PokeVLAError, SimulationError
from pokevla.evaluation.running.messages import Actions, Died, Loaded, Query, Refused, RunTrial, Seconds, TrialDone
from pokevla.evaluation.trials import Trial, placement_rng
from pokevla.parts import ENVIRONMENTS, get_part, import_extensions
from pokevla.processes import end_with_parent
from pokevla.simulation.benchmark import Environment, EnvironmentSettings, Switching

Script = Callable[[], np.ndarray]
"""The next action (A,) of an expert that reads the simulator's state."""


class EnvironmentFactory(Protocol):
    """(suite, task index) -> environment. Must be picklable, because it is sent to the worker process."""

    def __call__(self, suite: str, task_index: int) -> Environment: ...


@dataclass(frozen=True)
class BenchmarkFactory:
    """Creates environments of an entry of `pokevla.parts.ENVIRONMENTS`, which `extensions` may have added."""

    environment: str
    extensions: tuple[str, ...]
    settings: EnvironmentSettings

    def __call__(self, suite: str, task_index: int) -> Environment:
        import_extensions(self.extensions)
        return get_part("trials.environment", self.environment, ENVIRONMENTS).make(suite, task_index, self.settings)

    def script(self, environment: Environment) -> Script:
        """The benchmark's expert in the current state of `environment`.

        Raises:
            SimulationError: it cannot do this task, or the benchmark has none.
        """
        script = get_part("trials.environment", self.environment, ENVIRONMENTS).script
        if script is None:
            raise SimulationError(f"The benchmark {self.environment} has no scripted expert.")
        return script(environment)


def worker_main(connection: Connection, factory: EnvironmentFactory) -> None:
    """Serve `RunTrial` messages until the pipe closes. Keeps one environment, because trials are ordered by task.

    An error of the simulator in a trial ends this process, so that the trial is retried in a fresh one.
    """
    end_with_parent()  # a simulator that hangs would not notice the closed pipe
    environment: Environment | None = None
    loaded: tuple[str, int] | None = None
    try:
        while True:
            request: RunTrial = connection.recv()
            requested, spent = (request.trial.suite, request.trial.task_index), Seconds()
            if environment is None or loaded != requested:
                with _timed(spent, "load"):
                    environment = _environment_of(requested, environment, loaded, factory)
                    loaded = requested
                connection.send(Loaded())
            connection.send(run_trial(environment, request, connection, factory, spent))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the main process has closed the pipe: the evaluation is over
    except SimulationError as error:  # says something about this trial only
        connection.send(Died(str(error)))
    except PokeVLAError as error:
        connection.send(Refused(error))
    except Exception as error:  # any error of the simulator: the main process counts it as a crash
        connection.send(Died("".join(traceback.format_exception_only(error)).strip()))
        raise
    finally:
        if environment is not None:
            environment.close()


def _environment_of(
    requested: tuple[str, int],
    environment: Environment | None,
    loaded: tuple[str, int] | None,
    factory: EnvironmentFactory,
) -> Environment:
    """The environment of another task: what there is becomes it, if it can, else it is closed."""
    suite, task_index = requested
    if isinstance(environment, Switching) and loaded is not None and loaded[0] == suite:
        environment.switch(task_index)
        return environment
    if environment is not None:
        environment.close()
    return factory(suite, task_index)


def run_trial(
    environment: Environment, request: RunTrial, connection: Connection, factory: EnvironmentFactory, spent: Seconds
) -> TrialDone:
    """One closed-loop trial. Renders only at queries; stops at success or at the step limit."""
    trial = request.trial
    started = time.perf_counter()
    with _timed(spent, "reset"):
        shift = _reset(environment, trial)
    script: Script | None = None
    if request.scripted:
        script = factory.script(environment)  # type: ignore[attr-defined]  # only benchmarks have experts
    steps = queries = 0
    success = False
    while not success and steps < trial.max_steps:
        connection.send(_query(environment, request, steps, spent))
        queries += 1
        with _timed(spent, "waiting"):
            answer: Actions = connection.recv()
        with _timed(spent, "physics"):
            for number in range(min(len(answer), trial.max_steps - steps)):
                success = environment.step(script() if script else answer.actions[number])  # type: ignore[index]
                steps += 1
                if success:
                    break
    last = _query(environment, request, steps, spent) if request.masks or request.last_image else None
    task = environment.task
    return TrialDone(
        task.name, shift, success, steps, queries, time.perf_counter() - started, last,
        perturbation=task.perturbation, level=task.level, gl=environment.renderer, spent=spent,
    )  # fmt: skip


def _reset(environment: Environment, trial: Trial) -> tuple[float, float] | None:
    shift = None
    if trial.target_shift_m is not None:
        shift = environment.sample_target_shift(trial.init_state_index, placement_rng(trial), *trial.target_shift_m)
    environment.reset(trial.init_state_index, target_shift=shift, settle_steps=trial.settle_steps)
    return shift


def _query(environment: Environment, request: RunTrial, step: int, spent: Seconds) -> Query:
    with _timed(spent, "rendering"):
        seen = environment.observe(images=request.images, masks=request.masks)
    return Query(step, environment.task.instruction, seen.proprio, seen.images, seen.masks)


@contextmanager
def _timed(spent: Seconds, name: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        setattr(spent, name, getattr(spent, name) + time.perf_counter() - started)
