"""Tasks of LIBERO-Plus by suite and official index."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from pokevla.errors import EnvironmentSetupError, UsageError
from pokevla.simulation.benchmark import Instructions, TaskSource
from pokevla.simulation.libero_plus.bddl_files import BddlFile, read_bddl
from pokevla.simulation.libero_plus.checkout import GET_IT, Checkout, TaskRow, open_checkout
from pokevla.simulation.libero_plus.init_files import read_initial_state
from pokevla.simulation.libero_plus.names import SHARING, TaskName, spoken
from pokevla.simulation.suites import TaskInfo, list_tasks, load_init_states, scene_of


@dataclass(frozen=True, kw_only=True)
class PlusTask(TaskInfo):
    """A task of LIBERO-Plus. `base`: the LIBERO task that it perturbs. `bddl_file` is from the checkout where the task
    has a file of its own, else from the installed LIBERO (they are the same)."""

    base: TaskInfo
    parts: TaskName
    init_file: Path | None


def checkout_of(source: TaskSource) -> Checkout:
    """The checkout that the user names. EnvironmentSetupError if none is named, or what `open_checkout` raises."""
    if source.checkout is None:
        raise EnvironmentSetupError("LIBERO-Plus needs its task definitions: trials.libero_plus is not set.", GET_IT)
    return open_checkout(source.checkout.resolve())


def row_of(checkout: Checkout, suite: str, index: int) -> TaskRow:
    """Line `index` of a suite (its official id less one). UsageError if there is none."""
    rows = checkout.rows.get(suite)
    if rows is None:
        raise UsageError(f"LIBERO-Plus has no suite {suite}.", f"Known suites: {', '.join(checkout.rows)}.")
    if not 0 <= index < len(rows):
        raise UsageError(
            f"{suite} of LIBERO-Plus has no task {index}.", f"Valid task indices are 0 to {len(rows) - 1}."
        )
    return rows[index]


@cache
def plus_task(source: TaskSource, suite: str, index: int) -> PlusTask:
    """The task with official id `index` + 1. Raises what `checkout_of`, `row_of` and `read_bddl` raise."""
    checkout = checkout_of(source)
    row = row_of(checkout, suite, index)
    base = base_task(row)
    init_file = checkout.init_file(row)
    own = read_bddl(checkout.bddl_file(row)) if row.parts.file != base.name else None
    if own is None and source.instructions == "bddl":
        own = read_bddl(base.bddl_file)
    return PlusTask(
        suite=suite,
        index=index,
        name=row.name,
        instruction=instruction_of(row, own, source.instructions),
        bddl_file=base.bddl_file if row.parts.file == base.name else checkout.bddl_file(row),
        num_init_states=base.num_init_states if init_file is None else 1,
        objects_of_interest=base.objects_of_interest,
        perturbation=row.category,
        level=row.level,
        base=base,
        parts=row.parts,
        init_file=init_file,
    )


def kinship(source: TaskSource, suite: str, index: int) -> tuple[str, ...]:
    """Scene, base task, and `switch` for kinds between which `PlusEnvironment.switch` takes milliseconds.

    Robots and moved layouts have the scene of their base task; others have one of their own, and nothing in common.
    Raises what `checkout_of` and `row_of` raise.
    """
    row = row_of(checkout_of(source), suite, index)
    if row.parts.kind in SHARING:
        return scene_of(suite, base_task(row).index), row.parts.base, "switch"
    if row.parts.kind in ("robot", "moved"):
        return scene_of(suite, base_task(row).index), row.parts.base
    return ()


def instruction_of(row: TaskRow, own: BddlFile | None, source: Instructions) -> str:
    """What the policy is told.

    `clean`: the words of the base task's file name, on which published policies are trained. `filename`: those of the
    whole task name, as `task.language` of the official code, in which the perturbation can be read. `bddl`: those of
    the BDDL file. Language Instructions tasks have those of their BDDL file with every source, as officially.
    """
    if own is not None and (source == "bddl" or row.parts.kind == "language"):
        return own.instruction
    return spoken(row.name) if source == "filename" else row.parts.spoken


def base_task(row: TaskRow) -> TaskInfo:
    """The LIBERO task that a row perturbs."""
    found = _base_tasks(row.suite).get(row.parts.base)
    if found is None:
        raise EnvironmentSetupError(f"{row.name} perturbs no task of LIBERO's {row.suite}.", GET_IT)
    return found


def initial_states(task: PlusTask) -> np.ndarray:
    """(num_init_states, num_state_values) float64, by the official rule: an Objects Layout task has one of its own, the
    others have those of their base task, of which the official protocol uses the first."""
    if task.init_file is not None:
        return read_initial_state(task.init_file)[np.newaxis]
    return load_init_states(task.base)


@cache
def _base_tasks(suite: str) -> dict[str, TaskInfo]:
    return {task.name: task for task in list_tasks(suite)}
