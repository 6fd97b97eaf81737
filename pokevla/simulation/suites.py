"""The LIBERO suites: their tasks, instructions and shipped initial states.

Nothing here starts the simulator, so recipes and the command line can use it freely.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pokevla.errors import EnvironmentSetupError, SimulationError, UsageError

if TYPE_CHECKING:
    import numpy as np

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")

# Policy steps after which a trial has failed. Source: openvla-oft run_libero_eval.py, TASK_MAX_STEPS.
MAX_STEPS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520}


@dataclass(frozen=True)
class TaskInfo:
    """One LIBERO task.

    `instruction` is taken from the file name, as LIBERO's own benchmark class and every published
    evaluation does (the BDDL file words it slightly differently). `objects_of_interest` are the BDDL
    names, which may be regions such as `wooden_cabinet_1_top_region`. `perturbation` and `level`: of LIBERO-Plus.
    """

    suite: str
    index: int
    name: str
    instruction: str
    bddl_file: Path
    num_init_states: int
    objects_of_interest: tuple[str, ...]
    perturbation: str | None = None
    level: int | None = None


def get_task(suite: str, index: int) -> TaskInfo:
    """The task `index` of `suite`. Raises UsageError naming the nearest suite or the valid range."""
    tasks = _load_suite(_checked_suite(suite))
    if not 0 <= index < len(tasks):
        raise UsageError(f"{suite} has no task {index}.", f"Valid task indices are 0 to {len(tasks) - 1}.")
    return tasks[index]


def list_tasks(suite: str) -> list[TaskInfo]:
    """All tasks of `suite` in LIBERO's default order. Raises UsageError for an unknown suite."""
    return list(_load_suite(_checked_suite(suite)))


def load_init_states(task: TaskInfo) -> np.ndarray:
    """The shipped initial states, (num_init_states, num_state_values) float64: time, qpos, qvel."""
    import numpy as np

    with np.load(_init_state_file(task.suite, task.name), allow_pickle=False) as stored:
        return np.asarray(stored["states"])


@cache
def scene_of(suite: str, index: int) -> str:
    """Words that are equal for two tasks of a suite if MuJoCo compiles one model for both: the class of the scene, its
    fixtures and its objects. Raises what `get_task` raises, and SimulationError for a damaged BDDL file."""
    file = get_task(suite, index).bddl_file
    text = file.read_text(encoding="utf-8")
    groups = [re.search(rf"\({name}\s+([^)]*)\)", text) for name in ("define \\(problem", ":fixtures", ":objects")]
    if not all(groups):
        raise SimulationError(f"{file} names no scene, fixtures or objects.", "The LIBERO installation is damaged.")
    return "; ".join(" ".join(group.group(1).split()) for group in groups if group is not None)


def _checked_suite(suite: str) -> str:
    if suite in SUITES:
        return suite
    nearest = difflib.get_close_matches(suite, SUITES, n=1, cutoff=0.0)[0]
    raise UsageError(f"There is no suite {suite}.", f"Did you mean {nearest}? Known suites: {', '.join(SUITES)}.")


@cache
def _load_suite(suite: str) -> tuple[TaskInfo, ...]:
    try:
        # Suppress the hints that the package prints on import.
        with contextlib.redirect_stdout(io.StringIO()):
            from libero.libero import get_libero_path
            from libero.libero.benchmark import task_maps
    except ImportError as error:
        raise EnvironmentSetupError(
            f"LIBERO cannot be imported ({error}).", "Install it with: pip install 'pokevla[sim]'"
        ) from error
    tasks = []
    for index, entry in enumerate(task_maps[suite].values()):
        bddl_file = Path(get_libero_path("bddl_files")).resolve() / entry.problem_folder / entry.bddl_file
        tasks.append(
            TaskInfo(
                suite=suite,
                index=index,
                name=entry.name,
                instruction=entry.language,
                bddl_file=bddl_file,
                num_init_states=_num_init_states(suite, entry.name),
                objects_of_interest=_objects_of_interest(bddl_file),
            )
        )
    return tuple(tasks)


def _init_state_file(suite: str, name: str) -> Path:
    from libero.libero import get_libero_path

    return Path(get_libero_path("init_states")).resolve() / suite / f"{name}.pruned_init.npz"


def _num_init_states(suite: str, name: str) -> int:
    import numpy as np

    with np.load(_init_state_file(suite, name), allow_pickle=False) as stored:
        return int(stored["states"].shape[0])


def _objects_of_interest(bddl_file: Path) -> tuple[str, ...]:
    match = re.search(r"\(:obj_of_interest\s+([^)]*)\)", bddl_file.read_text(encoding="utf-8"))
    if match is None:
        raise SimulationError(f"{bddl_file} names no :obj_of_interest.", "The LIBERO installation is damaged.")
    return tuple(match.group(1).split())
