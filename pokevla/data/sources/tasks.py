"""Names of LIBERO's tasks, to identify suite and index of a file without the simulator installed."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pokevla.errors import DataError

if TYPE_CHECKING:
    from pokevla.data.sources.demonstrations import DemoFile

Instructions = Literal["task", "file"]

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


def task_instruction(suite: str, task: str) -> str | None:
    """The instruction that a known task's name words, as LIBERO's `grab_language_from_filename`
    (libero/libero/benchmark/__init__.py) reads it; None for an unknown task.

    Published policies are trained and evaluated with it. The BDDL files word 25 of the 40 tasks otherwise.
    """
    if task not in libero_tasks().get(suite, ()):
        return None
    return re.sub(r"^[A-Z][A-Z0-9_]*SCENE\d+_", "", task).replace("_", " ")


def choose_instruction(header: DemoFile, source: Instructions) -> tuple[str, Instructions]:
    """The instruction of a demonstration file, and whose wording it is. The same words in both count as the task's:
    prompts are in lower case.

    Raises:
        DataError: the file has no wording, and it was asked for or its task is unknown.
    """
    of_task, of_file = task_instruction(header.suite, header.task), header.file_instruction
    if source == "task" and of_task is not None:
        return of_task, "task"
    if of_file is None:
        known = "Pass --instructions task." if of_task is not None else "Name the file after its LIBERO task."
        raise DataError(f"{header.path}: attribute `problem_info` of data is missing: the file has no wording.", known)
    same = of_task is not None and of_task.lower() == of_file.lower()
    return of_file, "task" if same else "file"


def phrase(instance: str) -> str:
    """Natural-language name of an instance: `bbq_sauce_1` is "bbq sauce"."""
    head, _, tail = instance.rpartition("_")
    return (head if head and tail.isdigit() else instance).replace("_", " ")
