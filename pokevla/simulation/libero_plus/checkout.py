"""A checkout of LIBERO-Plus: the official task table and the files of its tasks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pokevla.errors import EnvironmentSetupError
from pokevla.files.texts import open_regular
from pokevla.simulation.libero_plus.names import TaskName, parse_name

NUM_TASKS = {"libero_spatial": 2402, "libero_object": 2518, "libero_goal": 2591, "libero_10": 2519}
"""Official tasks of each suite (sylvestf/LIBERO-plus, libero/libero/benchmark/__init__.py, `task_num`)."""
TABLE_SHA256 = "fe7ab148b65f32837aa81e956a8ea8fe5db421884c273a11c1f27aaef7eb0c3f"
"""Of the lines `suite id name category level` of the official table (task_classification.json, commit 4976dc3)."""
TABLE = "libero/libero/benchmark/task_classification.json"
GET_IT = (
    "trials.libero_plus should be a checkout of github.com/sylvestf/LIBERO-plus (git clone), or a folder with its "
    "task_classification.json and libero/libero/{bddl_files,init_files}."
)
_MAX_TABLE_BYTES = 16 << 20


@dataclass(frozen=True)
class TaskRow:
    """One line of the official table. `index` is its `id` less one."""

    suite: str
    index: int
    category: str
    level: int | None
    name: str
    parts: TaskName


@dataclass(frozen=True)
class Checkout:
    """A complete checkout of the known version."""

    root: Path
    rows: dict[str, tuple[TaskRow, ...]]

    def bddl_file(self, row: TaskRow) -> Path:
        """The BDDL file of a task. Tasks that differ in camera, robot or noise share that of their base task."""
        return self.root / "libero/libero/bddl_files" / row.suite / f"{row.parts.file}.bddl"

    def init_file(self, row: TaskRow) -> Path | None:
        """The initial state of an Objects Layout task; None for the others, which have those of their base task."""
        if row.parts.kind not in ("moved", "added"):
            return None
        return self.root / "libero/libero/init_files/libero_newobj" / row.suite / f"{row.parts.file}.pruned_init"

    @property
    def code(self) -> Path:
        """Folder of its Python files, which are read as data. Absent in a folder of definitions alone."""
        return self.root / "libero/libero/envs"


@cache
def open_checkout(root: Path) -> Checkout:
    """Read and check a checkout; once per process and folder.

    Raises EnvironmentSetupError if it is no checkout, lacks files, or its task table is of another version.
    """
    table = next((file for file in (root / TABLE, root / "task_classification.json") if file.is_file()), None)
    if table is None:
        raise EnvironmentSetupError(f"{root} holds no task_classification.json.", GET_IT)
    rows = _rows(table, _read(table))
    checkout = Checkout(root, rows)
    _check_version(table, rows)
    _check_files(checkout)
    return checkout


def _read(table: Path) -> Any:
    try:
        with open_regular(table) as file:
            content = file.read(_MAX_TABLE_BYTES + 1)
        if len(content) > _MAX_TABLE_BYTES:
            raise ValueError("it is too large")
        return json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise EnvironmentSetupError(f"{table} cannot be read ({error}).", GET_IT) from error


def _rows(table: Path, content: Any) -> dict[str, tuple[TaskRow, ...]]:
    found = {suite: len(content[suite]) for suite in content} if _is_table(content) else {}
    if found != NUM_TASKS:
        listed = ", ".join(f"{suite} {count:,}" for suite, count in found.items()) or "no table"
        wanted = ", ".join(f"{suite} {count:,}" for suite, count in NUM_TASKS.items())
        raise EnvironmentSetupError(f"{table} is of another version: it lists {listed}; known is {wanted}.", GET_IT)
    rows: dict[str, tuple[TaskRow, ...]] = {}
    for suite, tasks in content.items():
        rows[suite] = tuple(_row(table, suite, index, task) for index, task in enumerate(tasks))
    return rows


def _is_table(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(tasks, list) for tasks in content.values())


def _row(table: Path, suite: str, index: int, task: Any) -> TaskRow:
    name = task.get("name") if isinstance(task, dict) else None
    level = task.get("difficulty_level") if isinstance(task, dict) else None
    if not isinstance(name, str) or task.get("id") != index + 1 or not (level is None or isinstance(level, int)):
        raise EnvironmentSetupError(f"{table}: task {index + 1} of {suite} is damaged.", GET_IT)
    return TaskRow(suite, index, str(task.get("category")), level, name, parse_name(name))


def _check_version(table: Path, rows: dict[str, tuple[TaskRow, ...]]) -> None:
    digest = table_digest(rows)
    if digest != TABLE_SHA256:
        raise EnvironmentSetupError(
            f"{table} is of another version: it has as many tasks as the known one, but others.", GET_IT
        )


def table_digest(rows: dict[str, tuple[TaskRow, ...]]) -> str:
    """SHA-256 of the table's content, independent of its layout as JSON."""
    lines = [
        f"{row.suite} {row.index + 1} {row.name} {row.category} {row.level}\n"
        for suite in NUM_TASKS
        for row in rows[suite]
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check_files(checkout: Checkout) -> None:
    """Every task has its files. Folders are listed: asking for 8,000 files one by one takes long on a network."""
    needed: dict[Path, set[str]] = {}
    for rows in checkout.rows.values():
        for row in rows:
            for file in (checkout.bddl_file(row), checkout.init_file(row)):
                if file is not None:
                    needed.setdefault(file.parent, set()).add(file.name)
    missing = [
        folder / name
        for folder, names in needed.items()
        for name in sorted(names - ({file.name for file in folder.iterdir()} if folder.is_dir() else set()))
    ]
    if missing:
        raise EnvironmentSetupError(
            f"{checkout.root} is incomplete: {len(missing):,} files are missing, such as {missing[0]}.", GET_IT
        )
