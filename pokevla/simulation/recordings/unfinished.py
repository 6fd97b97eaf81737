"""Attempts of a recording that has not ended: a killed `pokevla data demos` goes on after the last one.

`pokevla data regenerate` keeps its finished episodes in such a folder too, as `demo_3.part`.

OUT/SUITE/.unfinished-NAME_demo/
    settings.json    what an attempt depends on; of another recording, nothing is used
    00003.npz        attempt 3: its arrays and, in JSON, the rest; a failed one has no arrays
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.files.texts import write_json
from pokevla.files.writing import atomic_file
from pokevla.simulation.recordings.episodes import DemoSettings, Episode
from pokevla.telemetry.code_version import code_commit

_OF_THE_WHOLE = ("out", "episodes", "val_fraction", "max_attempts", "workers")
"""Settings that no single attempt depends on."""
_SETTINGS, _REST, _INIT_STATE, _ARRAY = "settings.json", "rest", "init_state", "array/"


def unfinished_folder(path: Path) -> Path:
    """Folder of the attempts of the recording that becomes the file `path`."""
    return path.with_name(f".unfinished-{path.stem}")


def resumed(path: Path, settings: DemoSettings, run: Callable[[int], Iterable[Episode]]) -> Iterator[Episode]:
    """Yield the stored attempts, then those of `run(number of the first)`, each of which is stored before.

    Only one process may do this at a time, such as the one that holds the lock of `path`.

    Raises:
        DiskFullError: disk full.
        DataError: writing failed otherwise.
    """
    values = {name: value for name, value in dataclasses.asdict(settings).items() if name not in _OF_THE_WHOLE}
    folder = begun_folder(path, values)
    first = 0
    while (episode := _read(folder / _name(first))) is not None:
        yield episode
        first += 1
    for number, episode in enumerate(run(first), start=first):
        _write(folder / _name(number), episode)
        yield episode


def begun_folder(path: Path, values: dict[str, Any]) -> Path:
    """Folder for the finished parts of the recording that becomes `path`, with those that are there. They are removed
    if they were made with other `values` (what a part depends on), packages or code.

    Raises:
        DiskFullError: disk full.
        DataError: writing failed otherwise.
    """
    folder = unfinished_folder(path)
    packages = {name: version(name) for name in ("mujoco", "robosuite", "numpy")}
    identity = json.loads(json.dumps({**values, **packages, "code": code_commit()}))
    if _read_json(folder / _SETTINGS) != identity:
        forget(path)
        write_json(folder / _SETTINGS, identity)
    return folder


def forget(path: Path) -> None:
    """Remove the stored attempts: the recording has ended."""
    shutil.rmtree(unfinished_folder(path), ignore_errors=True)


def _name(number: int) -> str:
    return f"{number:05d}.npz"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(path: Path, episode: Episode) -> None:
    fields = {name: value for name, value in vars(episode).items() if name not in ("arrays", _INIT_STATE)}
    arrays: dict[str, Any] = {f"{_ARRAY}{name}": value for name, value in episode.arrays.items()}
    arrays |= {_REST: np.frombuffer(json.dumps(fields).encode(), np.uint8), _INIT_STATE: episode.init_state}
    with atomic_file(path, durable=False) as file:
        np.savez(file, **arrays)


def _read(path: Path) -> Episode | None:
    """A stored attempt; None if there is none, or only a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            fields = json.loads(stored[_REST].tobytes())
            arrays = {name.removeprefix(_ARRAY): stored[name] for name in stored if name.startswith(_ARRAY)}
            fields["target_shift"] = tuple(fields["target_shift"])
            return Episode(**fields, init_state=stored[_INIT_STATE], arrays=arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
