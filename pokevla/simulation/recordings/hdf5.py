"""Writes LIBERO's demonstration HDF5 (scripts/create_dataset.py of LIBERO) with our additions.

A file gets its final name only when it is complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pokevla.errors import DataError
from pokevla.files.failures import named_error
from pokevla.files.foreign.hdf5 import Hdf5File, hdf5_reader
from pokevla.files.writing import atomic_path
from pokevla.simulation.suites import TaskInfo, get_task
from pokevla.telemetry.code_version import code_commit

if TYPE_CHECKING:
    import h5py

    from pokevla.simulation.recordings.episodes import DemoSettings, Episode

_DEEPEST = 8
"""Groups within groups of a copied episode. LIBERO's have two levels; a loop of links has no end."""


COLLECTION, MASKS = "pokevla_collection", "pokevla_masks"
"""Attributes, in JSON, of the files that we record and of the copies to which we add masks."""


def refuse_other_recording(path: Path, attribute: str) -> None:
    """Refuse to replace an existing file without this attribute, at its root or on `data`: we did not write it.

    Raises:
        DataError: names the file.
    """
    try:
        with hdf5_reader() as reader:
            file = Hdf5File(path, reader)
            if any(attribute in file.attributes(owner) for owner in ("", "data") if not owner or file.is_group(owner)):
                return
    except DataError:  # a folder, unreadable, or not HDF5
        pass
    raise DataError(f"{path} exists and was not written by this command: it is not replaced.", "Choose another folder.")


@contextmanager
def new_hdf5(path: Path, made_with: str) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that gets its name if the block succeeds; otherwise nothing is left.

    An existing file is replaced if it has the attribute `made_with`, which the caller writes.

    Raises:
        DiskFullError: disk full.
        DataError: the existing file was not written by us, another process is writing this file, or writing failed
            otherwise.
    """
    import h5py

    with atomic_path(path, replaces=lambda old: refuse_other_recording(old, made_with)) as new:
        try:
            with h5py.File(new, "w") as file:
                yield file
                file.flush()
        except RuntimeError as error:  # a failed write that HDF5 noticed on closing
            raise named_error(error, path) from error


def copy_group(source: Hdf5File, key: str, target: h5py.Group, depth: int = 0) -> None:
    """Copy the content of a group of another file, with attributes and compression. `target` is new and empty.

    Not H5Ocopy: it would run libhdf5 on the other file in this process, and copy chunks that nothing can read.

    Raises:
        DataError: something of the other file cannot be read. Names file and key.
    """
    if depth > _DEEPEST:
        raise DataError(f"{source.path}: {key} lies more than {_DEEPEST} groups deep.", "Check the file.")
    copy_attributes(source, key, target)
    for name in source.keys(key):
        inner = f"{key}/{name}"
        if source.is_group(inner):
            copy_group(source, inner, target.create_group(name), depth + 1)
        else:
            storage = source.describe(inner).storage
            copy_attributes(source, inner, target.create_dataset(name, data=source.read(inner), **storage))


def copy_attributes(source: Hdf5File, key: str, target: h5py.Group | h5py.Dataset) -> None:
    """Copy the attributes of a group or dataset of another file. Raises what `copy_group` raises."""
    for name in source.attributes(key):
        target.attrs[name] = source.attribute(key, name)


def demonstrations_path(settings: DemoSettings) -> Path:
    """Path of a task's demonstrations: `<out>/<suite>/<task name>_demo.hdf5`."""
    task = get_task(settings.suite, settings.task_index)
    return settings.out / settings.suite / f"{task.name}_demo.hdf5"


class DemonstrationsFile:
    """Writes the episodes of one task to an HDF5 file one by one, without keeping them in memory."""

    def __init__(self, file: h5py.File, settings: DemoSettings) -> None:
        """Write the attributes that are known before the first episode."""
        self._settings = settings
        self._data = file.create_group("data")
        self._data.attrs.update(_task_attributes(get_task(settings.suite, settings.task_index), settings))
        self.steps: list[int] = []
        """Steps of each episode so far."""

    def add(self, episode: Episode) -> None:
        """Append one successful episode."""
        if not self.steps:
            self._data.attrs["instances"] = json.dumps(episode.instances)
            self._data.attrs["target_instances"] = json.dumps(episode.target_instances)
        _write_episode(self._data.create_group(f"demo_{len(self.steps)}"), episode)
        self.steps.append(len(episode.arrays["actions"]))

    def finish(self, num_val: int, failed: int) -> None:
        """Write the counts and the split of each episode (the last `num_val` are "val")."""
        self._data.attrs["num_demos"] = len(self.steps)
        self._data.attrs["total"] = sum(self.steps)
        self._data.attrs[COLLECTION] = json.dumps(_collection(self._settings, failed))
        for index in range(len(self.steps)):
            self._data[f"demo_{index}"].attrs["split"] = "val" if index >= len(self.steps) - num_val else "train"


def _write_episode(group: h5py.Group, episode: Episode) -> None:
    num_steps = len(episode.arrays["actions"])
    drawn = np.flatnonzero(episode.arrays["obs/rendered"])
    ends = np.zeros(num_steps, np.uint8)
    ends[-1] = 1
    for name, values in (episode.arrays | {"rewards": ends, "dones": ends}).items():
        if values.ndim <= 2:
            group.create_dataset(name, data=values)
            continue
        # One chunk per image: images that were not rendered take no space and read as zeros.
        shape = values.shape[1:]
        packed = {"compression": "gzip", "compression_opts": 1, "chunks": (1, *shape)}
        pictures = group.create_dataset(name, (num_steps, *shape), values.dtype, **packed)
        for step, picture in zip(drawn, values, strict=True):
            pictures[step] = picture
    group.attrs["num_samples"] = num_steps
    # HDF5 keeps attributes above 64 KiB only in its newer "dense" form, which h5py chooses by itself.
    group.attrs["model_file"] = episode.model_xml
    group.attrs["init_state"] = episode.init_state
    group.attrs["init_state_index"] = episode.init_state_index
    group.attrs["target_shift"] = np.asarray(episode.target_shift)
    group.attrs["episode_seed"] = episode.seed


def _task_attributes(task: TaskInfo, settings: DemoSettings) -> dict[str, Any]:
    """LIBERO's attributes of `data`, and how our rows are aligned."""
    bddl = task.bddl_file.read_text(encoding="utf-8")
    match = re.search(r"\(problem\s+(\w+)\)", bddl)
    problem = match.group(1) if match else ""
    sizes = {"camera_heights": settings.image_size, "camera_widths": settings.image_size}
    bddl_name = f"{task.suite}/{task.bddl_file.name}"
    return {
        "env_name": problem,
        "problem_info": json.dumps(
            {"problem_name": problem.lower(), "domain_name": "robosuite", "language_instruction": task.instruction}
        ),
        "macros_image_convention": "opengl",
        "bddl_file_name": bddl_name,
        "bddl_file_content": bddl,
        "env_args": json.dumps(
            {
                "type": 1,
                "env_name": problem,
                "problem_name": problem.lower(),
                "bddl_file": bddl_name,
                "env_kwargs": {"camera_names": ["agentview", "robot0_eye_in_hand"], "control_freq": 20, **sizes},
            }
        ),
        "pokevla_obs_alignment": "before",
    }


def _collection(settings: DemoSettings, failed: int) -> dict[str, Any]:
    """How the episodes were recorded; independent of the number of workers and the folder."""
    return {name: value for name, value in asdict(settings).items() if name not in ("out", "workers")} | {
        "failed_episodes": failed,
        "mujoco": version("mujoco"),
        "commit": code_commit() or "unknown",
    }
