"""Replays the actions of stored LIBERO demonstrations, as OpenVLA-OFT prepares its training data.

Source of the rules: openvla-oft, experiments/robot/libero/regenerate_libero_dataset.py. Two things differ. Cabinets and
stoves stand where the demonstration's own model has them, while OpenVLA-OFT draws them anew. And what is observed is
computed from the current joint positions, as in our evaluations; robosuite's observation is one 2 ms substep older.

An episode is written to a file of its own and copied from there, so that a killed command loses only the episodes that
were being replayed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.embodiment.noops import moving_frames
from pokevla.errors import SimulationError
from pokevla.files.foreign.hdf5 import Hdf5File, hdf5_reader
from pokevla.simulation.environment import LiberoEnvironment
from pokevla.simulation.recordings.episodes import robot_row
from pokevla.simulation.recordings.hdf5 import PACKED, new_hdf5
from pokevla.simulation.recordings.stored_episodes import CAMERAS, DemoSource, StoredEpisode, open_episode

SETTLE_STEPS = 10
"""Idle steps before the first action (OpenVLA-OFT)."""
_PART, _EPISODE = "pokevla_part", "episode"


@dataclass(frozen=True)
class RegenerationSettings:
    """How episodes are replayed. `image_size` in pixels."""

    image_size: int = 256
    masks: bool = True
    fast_rendering: bool = False


@dataclass(frozen=True)
class ReplayedEpisode:
    """Result of one replay: `rows` were recorded and `noops` actions dropped, unless it failed by `complaint`."""

    rows: int
    noops: int
    complaint: str | None
    instances: list[str]
    target_instances: list[str]


class EpisodeRegeneration:
    """Replays stored episodes, numbered through all files, each into a part file. Lives in a worker process."""

    def __init__(self, jobs: tuple[tuple[DemoSource, str, Path], ...], settings: RegenerationSettings) -> None:
        """A job is a file, the name of an episode and the path of its part."""
        self._jobs, self._settings = jobs, settings
        self._reader = hdf5_reader()
        self._env: LiberoEnvironment | None = None

    def __call__(self, number: int) -> ReplayedEpisode:
        """Replay episode `number`, unless its part is there.

        Raises DataError or SimulationError naming file and demo for what cannot be replayed.
        """
        file, demo, part = self._jobs[number]
        done = read_part(part)
        if done is not None:
            return done
        part.unlink(missing_ok=True)  # damaged, in a folder that is ours
        episode = open_episode(file, demo, self._reader)
        model = Hdf5File(file.source, self._reader).attribute(f"data/{demo}", "model_file")
        try:
            with new_hdf5(part, _PART) as stored:
                group = stored.create_group(_EPISODE)
                result = replay_actions(self._environment(file), episode, group, masks=self._settings.masks)
                if isinstance(model, str):
                    group.attrs["model_file"] = model
                if result.complaint is not None:
                    del stored[_EPISODE]
                stored.attrs[_PART] = json.dumps(asdict(result))
        except SimulationError as error:
            raise SimulationError(f"{file.source}: data/{demo}: {error.message}", error.remedy) from error
        return result

    def _environment(self, file: DemoSource) -> LiberoEnvironment:
        env, settings = self._env, self._settings
        if env is None or (env.task.suite, env.task.index) != (file.suite, file.task_index):
            if env is not None:
                env.close()
            env = LiberoEnvironment(
                file.suite,
                file.task_index,
                image_size=settings.image_size,
                fast_rendering=settings.fast_rendering,
            )
            self._env = env
        return env


def read_part(part: Path) -> ReplayedEpisode | None:
    """Result of an episode that was replayed before; None if there is none, or only a damaged one."""
    import h5py

    try:
        with h5py.File(part) as stored:
            result = ReplayedEpisode(**json.loads(str(stored.attrs[_PART])))
            return result if result.complaint is not None or _EPISODE in stored else None
    except (OSError, KeyError, ValueError, TypeError, RuntimeError):
        return None


def copy_part(part: Path, data: Any, demo: str) -> None:
    """Copy the episode of a part file to the group `data` of another file, under the name `demo`."""
    import h5py

    with h5py.File(part) as stored:
        stored.copy(_EPISODE, data, name=demo)


def replay_actions(env: LiberoEnvironment, episode: StoredEpisode, group: Any, *, masks: bool) -> ReplayedEpisode:
    """Replay one episode from its first state and write rows and pictures to the empty HDF5 group `group`.

    Row t is what was there before action t. As in OpenVLA-OFT's script the episode succeeds if the goal is reached
    after its last action. What is written of a failed episode is of no use.

    Raises:
        SimulationError: states or fixtures of another model.
        DataError: the episode cannot be read. Names file and demo.
    """
    if env.has_fixtures:
        env.place_fixtures(episode.model_poses())
    actions = episode.actions[moving_frames(episode.actions)]
    env.restart(episode.states[0], SETTLE_STEPS)
    rows: dict[str, list[np.ndarray]] = {}
    reached_at: int | None = None
    reached = False
    complaint = None if len(actions) else "no action moves the arm"
    for row, action in enumerate(actions):
        for name, value in robot_row(env).items():
            rows.setdefault(name, []).append(value)
        _draw(env, group, row, len(actions), masks=masks)
        reached = env.step(action)
        if reached and reached_at is None:
            reached_at = row
        if not np.isfinite(env.state()).all():
            complaint = f"the simulation becomes unstable at action {row} of {len(actions)}"
            break
    if complaint is None and not reached:
        lost = "" if reached_at is None else f", which was reached after action {reached_at}"
        complaint = f"its replay of {len(actions)} actions does not end at the goal{lost}"
    if complaint is None:
        _write_rows(group, actions, {name: np.stack(values) for name, values in rows.items()}, episode.states[0])
    noops = len(episode.actions) - len(actions)
    return ReplayedEpisode(len(actions), noops, complaint, env.instances, env.target_instances)


def _draw(env: LiberoEnvironment, group: Any, row: int, count: int, *, masks: bool) -> None:
    """Draw the two views at `row` of `count` into picture by picture chunks, so that no episode waits in memory."""
    drawn = {"rgb": env.stored_images()} | ({"mask": env.stored_masks()} if masks else {})
    for kind, views in drawn.items():
        for camera, picture in zip(CAMERAS, views, strict=True):
            name, shape = f"obs/{camera}_{kind}", picture.shape
            if row == 0:
                group.create_dataset(name, (count, *shape), np.uint8, chunks=(1, *shape), **PACKED)
            group[name][row] = picture


def _write_rows(group: Any, actions: np.ndarray, rows: dict[str, np.ndarray], init_state: np.ndarray) -> None:
    ends = np.zeros(len(actions), np.uint8)
    ends[-1] = 1
    for name, values in {**rows, "actions": actions, "rewards": ends, "dones": ends}.items():
        group.create_dataset(name, data=values)
    group.attrs["num_samples"] = len(actions)
    group.attrs["init_state"] = init_state
