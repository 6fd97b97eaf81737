"""Which tasks can run with the folders that the user has named, and preparing LIBERO for one of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pokevla.errors import SimulationError
from pokevla.simulation.benchmark import TaskSource
from pokevla.simulation.libero_plus.added_objects import find_objects, register_objects
from pokevla.simulation.libero_plus.assets import assets_of
from pokevla.simulation.libero_plus.bddl_files import read_bddl
from pokevla.simulation.libero_plus.checkout import Checkout, TaskRow
from pokevla.simulation.libero_plus.names import Kind
from pokevla.simulation.libero_plus.scenes import Scene, find_scene, register_scene
from pokevla.simulation.libero_plus.tasks import PlusTask, checkout_of, row_of

NATIVE: tuple[Kind, ...] = ("camera", "robot", "language", "noise", "moved")
"""Kinds that need nothing but the task definitions."""


@dataclass(frozen=True)
class Extras:
    """What a task needs beyond LIBERO's own scenes and objects."""

    scene: Scene | None
    objects: dict[str, Path]


@cache
def unavailable_tasks(source: TaskSource, suite: str) -> dict[int, str]:
    """Tasks of a suite that cannot run, with the reason. Raises what `checkout_of` and `assets_of` raise.

    Files are looked up by name; what a scene's XML names in turn is found when the task is run.
    """
    checkout, assets = checkout_of(source), assets_of(source)
    reasons = {}
    for row in checkout.rows[suite]:
        if row.parts.kind not in NATIVE:
            found = _extras(checkout, assets, row)
            if isinstance(found, str):
                reasons[row.index] = found
    return reasons


def prepare(source: TaskSource, task: PlusTask) -> None:
    """Make LIBERO know the scene and the objects of a task. SimulationError if it cannot run. Imports MuJoCo."""
    if task.parts.kind in NATIVE:
        return
    checkout = checkout_of(source)
    found = _extras(checkout, assets_of(source), row_of(checkout, task.suite, task.index))
    if isinstance(found, str):
        raise SimulationError(
            f"{task.suite} task {task.index} ({task.name}) cannot run: {found}.", "See docs/libero_plus.md."
        )
    if found.scene is not None:
        register_scene(found.scene)
    register_objects(found.objects)


def _extras(checkout: Checkout, assets: Path | None, row: TaskRow) -> Extras | str:
    bddl = read_bddl(checkout.bddl_file(row))
    if row.parts.kind == "added":
        objects = find_objects(checkout.code, assets, bddl.categories)
        return objects if isinstance(objects, str) else Extras(None, objects)
    scene = find_scene(checkout.code, assets, bddl.problem)
    return scene if isinstance(scene, str) else Extras(scene, {})
