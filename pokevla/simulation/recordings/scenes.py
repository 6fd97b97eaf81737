"""Still images of rearranged scenes with instance masks, for VLM pre-training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.errors import UsageError
from pokevla.simulation.environment import LiberoEnvironment
from pokevla.simulation.geometry import clearance
from pokevla.simulation.recordings.hdf5 import COLLECTION, new_hdf5
from pokevla.simulation.recordings.workers import run_ordered
from pokevla.simulation.suites import get_task

VAL_EVERY = 10  # every tenth scene is for validation
SCENES_PER_JOB = 20  # of one task, so that they share one environment
_GAP_M = 0.015
_PLACE_DRAWS = 60
_SETTLE_STEPS = 4
_ARM_STEPS = 14  # how long the arm travels towards its random pose


@dataclass(frozen=True)
class SceneSettings:
    """Settings of `collect_scenes`."""

    suite: str
    task_indices: tuple[int, ...]
    count: int
    seed: int
    image_size: int
    fast_rendering: bool
    init_states: tuple[int, int]

    def jobs(self) -> list[tuple[int, range]]:
        """(task index, scene numbers) of each job: tasks share the count as evenly as it goes."""
        jobs = []
        first = 0
        for position, task in enumerate(self.task_indices):
            share = self.count // len(self.task_indices) + (position < self.count % len(self.task_indices))
            for start in range(0, share, SCENES_PER_JOB):
                jobs.append((task, range(first + start, first + min(start + SCENES_PER_JOB, share))))
            first += share
        return jobs


def collect_scenes(
    suite: str,
    task_indices: tuple[int, ...],
    count: int,
    out: Path,
    seed: int,
    image_size: int,
    workers: int,
    fast_rendering: bool,
    init_states: tuple[int, int] = (0, 50),
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render `count` scenes into `<out>/<suite>_scenes.hdf5` and return its path.

    In each scene all movable objects are at random positions, clear of each other, and the arm is somewhere above them.
    Datasets: `images` (N, 2, H, W, 3) and `masks` (N, 2, H, W) uint8 right way up, mask value = index in the
    attribute `instances/<task>` plus 1; `scene_task`, `split` and `init_state_index` (the shipped state it was made
    from) (N,). Scene n is a function of (seed, n) for the same tasks and count. `on_progress(done, count)`. Raises
    UsageError, SimulationError, DiskFullError.
    """
    settings = SceneSettings(suite, tuple(task_indices), count, seed, image_size, fast_rendering, init_states)
    _check(settings)
    jobs = settings.jobs()
    path = out / f"{suite}_scenes.hdf5"
    size = settings.image_size
    with new_hdf5(path, COLLECTION) as file:
        chunk = {"compression": "gzip", "compression_opts": 1}
        images = file.create_dataset(
            "images", (count, 2, size, size, 3), np.uint8, chunks=(1, 2, size, size, 3), **chunk
        )
        masks = file.create_dataset("masks", (count, 2, size, size), np.uint8, chunks=(1, 2, size, size), **chunk)
        scene_task, init_states_used = np.zeros(count, np.int32), np.zeros(count, np.int32)
        for (task, numbers), batch in zip(jobs, run_ordered(SceneMaker, (settings,), len(jobs), workers), strict=True):
            where = slice(numbers.start, numbers.stop)
            images[where], masks[where] = batch["images"], batch["masks"]
            scene_task[where], init_states_used[where] = task, batch["init_states"]
            file.attrs[f"instances/{task}"] = json.dumps(batch["instances"])
            if on_progress is not None:
                on_progress(numbers.stop, count)
        file.create_dataset("scene_task", data=scene_task)
        file.create_dataset("init_state_index", data=init_states_used)
        splits = ["val" if number % VAL_EVERY == VAL_EVERY - 1 else "train" for number in range(count)]
        file.create_dataset("split", data=np.array(splits, dtype="S5"))
        file.attrs["seed"] = seed
        file.attrs[COLLECTION] = json.dumps(asdict(settings))
    return path


class SceneMaker:
    """Renders the scenes of one job after another; builds an environment when the task changes."""

    def __init__(self, settings: SceneSettings) -> None:
        self._settings = settings
        self._jobs = settings.jobs()
        self._env: LiberoEnvironment | None = None

    def __call__(self, job: int) -> dict[str, Any]:
        """`images`, `masks`, `init_states` and `instances` of job number `job`."""
        task, numbers = self._jobs[job]
        env = self._environment(task)
        drawn = [self._scene(env, number) for number in numbers]
        images, masks, init_states = zip(*drawn, strict=True)
        return {
            "images": np.stack(images),
            "masks": np.stack(masks),
            "init_states": np.array(init_states),
            "instances": env.instances,
        }

    def _environment(self, task: int) -> LiberoEnvironment:
        settings = self._settings
        if self._env is None or self._env.task.index != task:
            if self._env is not None:
                self._env.close()
            self._env = LiberoEnvironment(
                settings.suite, task, image_size=settings.image_size, fast_rendering=settings.fast_rendering
            )
        return self._env

    def _scene(self, env: LiberoEnvironment, number: int) -> tuple[np.ndarray, np.ndarray, int]:
        rng = np.random.default_rng([self._settings.seed, number])
        init_state = int(rng.integers(*self._settings.init_states))
        env.restore_state(init_state)
        scatter(env, rng)
        low, high = env.placement.reach()
        goal = np.array([*rng.uniform(low, high), env.proprio()[2] + rng.uniform(-0.06, 0.05)])
        for _ in range(_ARM_STEPS):
            offset = np.clip((goal - env.robot_pose()[0]) / 0.05, -1.0, 1.0)
            env.step(np.array([*offset, 0.0, 0.0, 0.0, -1.0]))
        for _ in range(_SETTLE_STEPS):
            env.step(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]))
        images = env.observe().images
        assert images is not None  # asked for
        return images, env.instance_masks(), init_state


def scatter(env: LiberoEnvironment, rng: np.random.Generator) -> None:
    """Move every movable object on the ground to a random position within reach, clear of the others.

    Objects in or on others stay, as do objects for which no free position is found.
    """
    placement = env.placement
    low, high = placement.reach()
    footprints = {name: placement.footprint(name) for name in env.instances if len(placement.collision_geoms(name))}
    bottoms = {name: float(placement.points(name)[:, 2].min()) for name in placement.movable}
    ground = min(bottoms.values(), default=0.0)
    for name in placement.movable:
        if bottoms[name] > ground + 0.02:
            continue
        footprint = footprints[name]
        for _ in range(_PLACE_DRAWS):
            shift = rng.uniform(low, high) - footprint.mean(axis=0)
            gaps = (clearance(footprint + shift, other) for key, other in footprints.items() if key != name)
            if all(gap > _GAP_M for gap in gaps):
                placement.move(name, shift)
                footprints[name] = footprint + shift
                break


def _check(settings: SceneSettings) -> None:
    if settings.count < 1 or not settings.task_indices:
        raise UsageError("There is nothing to render.", "Set a count of at least 1 and at least one task.")
    low, high = settings.init_states
    for index in settings.task_indices:
        task = get_task(settings.suite, index)
        if not 0 <= low < high <= task.num_init_states:
            raise UsageError(
                f"Initial states {low}:{high} are not within {settings.suite} task {index}.",
                f"It has {task.num_init_states}: give a range within 0:{task.num_init_states}.",
            )
