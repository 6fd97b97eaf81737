"""Messages between the main process of an evaluation and its workers: dataclasses over one pipe.

main `RunTrial` -> worker; worker `Loaded` if it had to build the environment; worker `Query` -> main `Actions` ->
worker, as often as needed; worker `TrialDone`. On an error that concerns the whole evaluation a worker sends `Refused`.
On any other error, or when it is killed, it ends (with `Died`, if it can), and the main process sees the pipe close.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pokevla.errors import PokeVLAError
from pokevla.evaluation.trials import Trial


@dataclass(frozen=True)
class RunTrial:
    """Main to worker: run this trial. `images`, `masks`: what to render at each query."""

    trial: Trial
    images: bool
    masks: bool
    last_image: bool = False
    """Render what the robot sees when the trial has ended, too."""
    scripted: bool = False
    """The benchmark's own expert acts, in the worker; answers say only how many actions."""


@dataclass(frozen=True)
class Loaded:
    """Worker to main: the environment is built; from here on the limits of a reset apply."""


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

    actions: np.ndarray | None  # (n, A) raw actions; None: `count` actions of the benchmark's expert
    count: int = 0

    def __len__(self) -> int:
        return self.count if self.actions is None else len(self.actions)


@dataclass
class Seconds:
    """Where the time of a trial went, in seconds of wall clock."""

    load: float = 0.0
    """Building the environment; 0 if the former trial had the same task."""
    reset: float = 0.0
    """Initial state and settling."""
    physics: float = 0.0
    rendering: float = 0.0
    waiting: float = 0.0
    """For answers: the policy, and the other trials that it serves."""


@dataclass(frozen=True)
class TrialDone:
    """Worker to main: the trial has ended. `last` is the observation after the last action, if it was asked for."""

    task: str
    target_shift: tuple[float, float] | None
    success: bool
    steps: int
    queries: int
    seconds: float
    last: Query | None
    perturbation: str | None = None
    level: int | None = None
    gl: str = ""
    spent: Seconds = field(default_factory=Seconds)


@dataclass(frozen=True)
class Refused:
    """Worker to main: a named error that ends the evaluation (no such task, no GL library)."""

    error: PokeVLAError


@dataclass(frozen=True)
class Died:
    """Worker to main, just before it ends: the reason. A killed worker cannot send it."""

    reason: str
