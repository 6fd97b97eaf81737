"""Interface between an evaluation and a simulator: tasks by suite and index, and an environment for each.

A simulator is one `Benchmark`, an entry of `pokevla.parts.ENVIRONMENTS`. Nothing here imports a simulator: recipes are
checked with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np


FixtureMode = Literal["per_trial", "fixed"]
"""Whether fixtures (cabinet, stove, rack) are placed anew in each trial or stay where the first one has them."""

Placements = Literal["shipped", "drawn"]
"""Whether initial states are those that the benchmark ships or are drawn by its own samplers."""

Instructions = Literal["clean", "bddl", "filename"]
"""Source of the instructions of LIBERO-Plus (docs/libero_plus.md)."""

RobotInit = Literal["published", "full"]
"""How a perturbed initial pose of the arm of LIBERO-Plus is applied (docs/libero_plus.md)."""


class Task(Protocol):
    """One task of a suite."""

    @property
    def name(self) -> str: ...

    @property
    def instruction(self) -> str: ...

    @property
    def num_init_states(self) -> int: ...

    @property
    def perturbation(self) -> str | None:
        """What differs from a standard task, such as `Camera Viewpoints`; None for a standard task."""
        ...

    @property
    def level(self) -> int | None:
        """Difficulty of the perturbation, 1 (least) to 5; None if the benchmark states none."""
        ...


class Observation(Protocol):
    """What a policy sees, in the embodiment's order of views and fields."""

    @property
    def proprio(self) -> np.ndarray:
        """(P,) float32, raw."""
        ...

    @property
    def images(self) -> np.ndarray | None:
        """(V, H, W, 3) uint8, right way up; None if not requested."""
        ...

    @property
    def masks(self) -> np.ndarray | None:
        """(V, H, W) uint8, 1 inside the target or a reference object; None if not requested."""
        ...


class Environment(Protocol):
    """Simulation of one task. Created, used and closed in one worker process."""

    @property
    def task(self) -> Task: ...

    @property
    def renderer(self) -> str:
        """What renders: back end and GL renderer. Empty as long as nothing was rendered."""
        ...

    def reset(
        self, init_state_index: int, *, target_shift: tuple[float, float] | None = None, settle_steps: int = 10
    ) -> None:
        """Set an initial state, with the target moved by (x, y) metres, and let objects come to rest."""
        ...

    def sample_target_shift(
        self, init_state_index: int, rng: np.random.Generator, low_m: float, high_m: float
    ) -> tuple[float, float]:
        """Draw where to move the target of an initial state: `low_m` to `high_m` metres along each axis."""
        ...

    def step(self, action: np.ndarray) -> bool:
        """Execute one raw action (A,); returns whether the task is done."""
        ...

    def observe(self, *, images: bool = True, masks: bool = False) -> Observation:
        """What the policy sees now. Renders only what is requested."""
        ...

    def close(self) -> None:
        """Free the simulator."""
        ...


@runtime_checkable
class Switching(Protocol):
    """What an environment can do beyond `Environment` if becoming another task is cheaper than to be created anew."""

    def switch(self, task_index: int) -> None:
        """Become another task of the same suite, in every respect as a new environment of that task would be."""
        ...


@dataclass(frozen=True)
class TaskSource:
    """Where tasks come from and how they are worded, for a benchmark that leaves it to the user."""

    checkout: Path | None = None
    """Folder with the benchmark's task definitions."""
    assets: Path | None = None
    """Folder with scenes, textures and objects that are not installed."""
    instructions: Instructions = "clean"
    robot_init: RobotInit = "published"


@dataclass(frozen=True)
class EnvironmentSettings:
    """Settings with which an environment is created."""

    image_size: int  # px, square
    fast_rendering: bool
    seed: int
    fixtures: FixtureMode = "per_trial"
    source: TaskSource = TaskSource()
    placements: Placements = "shipped"


@dataclass(frozen=True)
class Benchmark:
    """One simulator with its suites of tasks."""

    suites: tuple[str, ...]
    num_tasks: Callable[[str], int]
    """Tasks of a suite."""
    max_steps: Callable[[str], int]
    """Policy steps after which a trial of a suite has failed."""
    get_task: Callable[[str, int], Task]
    """(suite, index) -> task; UsageError if it does not exist."""
    make: Callable[[str, int, EnvironmentSettings], Environment]
    """Creates an environment. Called in a worker process, where the simulator is imported."""
    embodiment: str
    """The simulated robot, an entry of `pokevla.parts.EMBODIMENTS`."""
    script: Callable[[Environment], Callable[[], np.ndarray]] | None = None
    """Creates an expert for an environment that was just reset: its calls return the next action (A,)."""
    draws_placements: bool = False
    """Whether environments can draw placements (`EnvironmentSettings.placements`)."""
    packages: tuple[str, ...] = ()
    """Python packages whose versions go into the summary."""
    perturbations: tuple[str, ...] = ()
    """What `Task.perturbation` can be."""
    with_source: Callable[[TaskSource], Benchmark] | None = None
    """The same benchmark with the user's tasks. None: its tasks are installed, and a source changes nothing."""
    unavailable_tasks: Callable[[str], dict[int, str]] = lambda _suite: {}
    """Tasks of a suite that cannot run, with the reason."""

    kinship: Callable[[str, int], tuple[str, ...]] = lambda _suite, _index: ()
    """(suite, task index) -> what its environment is made of, from the general to the particular. The more leading
    words two tasks of a suite have in common, the cheaper a `Switching` environment goes from one to the other."""

    def configured(self, source: TaskSource) -> Benchmark:
        """The benchmark whose `get_task` and `unavailable_tasks` read `source`."""
        return self if self.with_source is None else self.with_source(source)
