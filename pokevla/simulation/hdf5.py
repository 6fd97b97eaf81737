"""Writing LIBERO's demonstration HDF5 (scripts/create_dataset.py of LIBERO) with our additions.

A file appears under its final name only when it is whole.
"""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pokevla.errors import DataError, DiskFullError
from pokevla.simulation.suites import TaskInfo, get_task

if TYPE_CHECKING:
    import h5py

    from pokevla.simulation.episodes import DemoSettings, Episode

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file that gets its name when the block ends well; otherwise nothing of it is left.

    Raises DiskFullError if there is no room, DataError for any other failure to write.
    """
    import h5py

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path} could not be written ({error}).", "Choose another folder.") from error
    try:
        with h5py.File(temporary, "w") as file:
            yield file
            file.flush()
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    # HDF5 reports a failed write as OSError or, on closing, as RuntimeError, the errno only in its text.
    except (OSError, RuntimeError) as error:
        found = re.search(r"errno = (\d+)", str(error))
        code = int(found.group(1)) if found else getattr(error, "errno", None)
        if code in _FULL:
            raise DiskFullError(f"No room to write {path}.", "Free some space or choose another folder.") from error
        raise DataError(f"{path} could not be written ({error}).", "Check the folder and its permissions.") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_demonstrations(
    settings: DemoSettings, episodes: Sequence[Episode], splits: Sequence[str], failed: int
) -> Path:
    """Write the episodes of one task; `splits` gives "train" or "val" for each. Returns the path."""
    task = get_task(settings.suite, settings.task_index)
    path = settings.out / settings.suite / f"{task.name}_demo.hdf5"
    with new_hdf5(path) as file:
        data = file.create_group("data")
        data.attrs.update(_file_attributes(task, settings, episodes, failed))
        for index, (episode, split) in enumerate(zip(episodes, splits, strict=True)):
            _write_episode(data.create_group(f"demo_{index}"), episode, split)
    return path


def _write_episode(group: h5py.Group, episode: Episode, split: str) -> None:
    num_steps = len(episode.arrays["actions"])
    ends = np.zeros(num_steps, np.uint8)
    ends[-1] = 1
    for name, values in (episode.arrays | {"rewards": ends, "dones": ends}).items():
        # One chunk per picture: rows that were not drawn then cost next to nothing.
        packed = {"compression": "gzip", "compression_opts": 1, "chunks": (1, *values.shape[1:])}
        group.create_dataset(name, data=values, **(packed if values.ndim > 2 else {}))
    group.attrs["num_samples"] = num_steps
    # HDF5 keeps attributes above 64 KiB only in its newer "dense" form, which h5py chooses by itself.
    group.attrs["model_file"] = episode.model_xml
    group.attrs["init_state"] = episode.init_state
    group.attrs["init_state_index"] = episode.init_state_index
    group.attrs["target_shift"] = np.asarray(episode.target_shift)
    group.attrs["episode_seed"] = episode.seed
    group.attrs["split"] = split


def _file_attributes(
    task: TaskInfo, settings: DemoSettings, episodes: Sequence[Episode], failed: int
) -> dict[str, Any]:
    """LIBERO's attributes of `data`, then ours."""
    bddl = task.bddl_file.read_text(encoding="utf-8")
    found = re.search(r"\(problem\s+(\w+)\)", bddl)
    problem = found.group(1) if found else ""
    sizes = {"camera_heights": settings.image_size, "camera_widths": settings.image_size}
    bddl_name = f"{task.suite}/{task.bddl_file.name}"
    collection = {name: value for name, value in asdict(settings).items() if name not in ("out", "workers")} | {
        "failed_episodes": failed,
        "mujoco": version("mujoco"),
        "commit": _commit(),
    }
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
        "num_demos": len(episodes),
        "total": sum(len(episode.arrays["actions"]) for episode in episodes),
        "pokevla_obs_alignment": "before",
        "instances": json.dumps(episodes[0].instances),
        "target_instances": json.dumps(episodes[0].target_instances),
        "pokevla_collection": json.dumps(collection),
    }


def _commit() -> str:
    """The commit this code is of, "unknown" outside a git checkout."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # no git here
        return "unknown"
    return done.stdout.strip() or "unknown"
