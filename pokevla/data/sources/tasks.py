"""Names of LIBERO's tasks, so that a file on disk finds its suite and index without the simulator installed."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path

SUFFIX = "_demo.hdf5"
"""Official demonstrations are `<suite>/<task name>_demo.hdf5`."""


@cache
def libero_tasks() -> dict[str, tuple[str, ...]]:
    """Task names of the four suites in LIBERO's order (libero_suite_task_map.py, task order 0)."""
    text = files("pokevla.data.sources").joinpath("libero_tasks.json").read_text()
    return {suite: tuple(names) for suite, names in json.loads(text).items()}


def identify(path: Path) -> tuple[str, str, int | None]:
    """(suite, task name, index in the suite or None) of a demonstration file, by its name and folder.

    A name that several suites could have belongs to the folder's; an unknown one keeps the folder's name as its suite.
    """
    name = path.name.removesuffix(SUFFIX).removesuffix(path.suffix)
    tasks = libero_tasks()
    folder = path.resolve().parent.name
    for suite in (folder, *tasks):
        if name in tasks.get(suite, ()):
            return suite, name, tasks[suite].index(name)
    return folder, name, None


def phrase(instance: str) -> str:
    """How a person calls an instance: `bbq_sauce_1` is "bbq sauce"."""
    head, _, tail = instance.rpartition("_")
    return (head if head and tail.isdigit() else instance).replace("_", " ")
