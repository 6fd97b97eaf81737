"""Worker process that owns an environment, runs trials and queries the main process for actions.

Messages over one pipe, dataclasses in both directions:
main `RunTrial` -> worker; worker `Query` -> main `Actions` -> worker, as often as needed; worker `TrialDone`.
On a named error a worker sends `Refused`. On any other error, or when it is killed, it ends, and the main process sees
the pipe close. This process does not import torch, which would cost memory and threads.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from pokevla.errors import PokeVLAError
from pokevla.evaluation.trials import Trial, placement_rng
from pokevla.parts import ENVIRONMENTS, get_part, import_extensions
from pokevla.processes import end_with_parent
from pokevla.simulation.benchmark import Environment, EnvironmentSettings

EnvironmentFactory = Callable[[str, int], Environment]
"""(suite, task index) -> environment. Must be picklable, because it is sent to the worker process."""


@dataclass(frozen=True)
class BenchmarkFactory:
    """Creates environments of an entry of `pokevla.parts.ENVIRONMENTS`, which `extensions` may have added."""

    environment: str
    extensions: tuple[str, ...]
    settings: EnvironmentSettings

    def __call__(self, suite: str, task_index: int) -> Environment:
        import_extensions(self.extensions)
        return get_part("trials.environment", self.environment, ENVIRONMENTS).make(suite, task_index, self.settings)


@dataclass(frozen=True)
class RunTrial:
    """Main to worker: run this trial. `images`, `masks`: what to render at each query."""

    trial: Trial
    images: bool
    masks: bool


@dataclass(frozen=True)
class Query:
    """Worker to main: what the policy sees before action number `step`."""

    step: int
    instruction: str
    proprio: np.ndarray  # (P,) float32
    images: np.ndarray | None  # (V, H, W, 3) uint8
    masks: np.ndarray | None  # (V, H, W) uint8, 1 inside the target or a reference object


@dataclass(frozen=True)
class Actions:
    """Main to worker: actions to execute before the next query."""

    actions: np.ndarray  # (n, A) raw actions


@dataclass(frozen=True)
class TrialDone:
    """Worker to main: the trial has ended. `last` is the observation after the last action, if images are rendered."""

    task: str
    target_shift: tuple[float, float] | None
    success: bool
    steps: int
    queries: int
    seconds: float
    last: Query | None


@dataclass(frozen=True)
class Refused:
    """Worker to main: a named error that ends the evaluation (no such task, no GL library)."""

    error: PokeVLAError


@dataclass(frozen=True)
class Died:
    """Worker to main, just before it ends: the reason. A killed worker cannot send it."""

    reason: str


def worker_main(connection: Connection, factory: EnvironmentFactory) -> None:
    """Serve `RunTrial` messages until the pipe closes. Keeps one environment, because trials are ordered by task."""
    end_with_parent()  # a simulator that hangs would not notice the closed pipe
    environment: Environment | None = None
    loaded: tuple[str, int] | None = None
    try:
        while True:
            request: RunTrial = connection.recv()
            requested = (request.trial.suite, request.trial.task_index)
            if environment is None or loaded != requested:
                if environment is not None:
                    environment.close()
                environment, loaded = factory(*requested), requested
            connection.send(run_trial(environment, request, connection))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the main process has closed the pipe: the evaluation is over
    except PokeVLAError as error:
        connection.send(Refused(error))
    except Exception as error:  # any error of the simulator: the main process counts it as a crash
        connection.send(Died("".join(traceback.format_exception_only(error)).strip()))
        raise
    finally:
        if environment is not None:
            environment.close()


def run_trial(environment: Environment, request: RunTrial, connection: Connection) -> TrialDone:
    """One closed-loop trial. Renders only at queries; stops at success or at the step limit."""
    trial = request.trial
    started = time.monotonic()
    shift = None
    if trial.target_shift_m is not None:
        shift = environment.sample_target_shift(trial.init_state_index, placement_rng(trial), *trial.target_shift_m)
    environment.reset(trial.init_state_index, target_shift=shift, settle_steps=trial.settle_steps)
    steps = queries = 0
    success = False
    while not success and steps < trial.max_steps:
        connection.send(_query(environment, request, steps))
        queries += 1
        answer: Actions = connection.recv()
        for action in answer.actions[: trial.max_steps - steps]:
            success = environment.step(action)
            steps += 1
            if success:
                break
    last = _query(environment, request, steps) if request.masks else None
    seconds = time.monotonic() - started
    return TrialDone(environment.task.name, shift, success, steps, queries, seconds, last)


def _query(environment: Environment, request: RunTrial, step: int) -> Query:
    seen = environment.observe(images=request.images, masks=request.masks)
    return Query(step, environment.task.instruction, seen.proprio, seen.images, seen.masks)
