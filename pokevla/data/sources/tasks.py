"""Names of LIBERO's tasks, to identify suite and index of a file without the simulator installed."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path

SUFFIX = "_demo.hdf5"
"""Suffix of official demonstration files: `<suite>/<task name>_demo.hdf5`."""


@cache
def libero_tasks() -> dict[str, tuple[str, ...]]:
    """Task names of the four suites in LIBERO's order (libero_suite_task_map.py, task order 0)."""
    text = files("pokevla.data.sources").joinpath("libero_tasks.json").read_text(encoding="utf-8")
    return {suite: tuple(names) for suite, names in json.loads(text).items()}


def identify(path: Path) -> tuple[str, str, int | None]:
    """(suite, task name, index in the suite or None) of a demonstration file, from its name and folder.

    The folder decides if several suites have a task of that name. For an unknown task the suite is the folder's name.
    """
    name = path.name.removesuffix(SUFFIX).removesuffix(path.suffix)
    tasks = libero_tasks()
    folder = path.resolve().parent.name
    for suite in (folder, *tasks):
        if name in tasks.get(suite, ()):
            return suite, name, tasks[suite].index(name)
    return folder, name, None


def phrase(instance: str) -> str:
    """Natural-language name of an instance: `bbq_sauce_1` is "bbq sauce"."""
    head, _, tail = instance.rpartition("_")
    return (head if head and tail.isdigit() else instance).replace("_", " ")
