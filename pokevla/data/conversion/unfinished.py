"""The finished parts of a conversion that has not ended: a killed conversion goes on after them.

.unfinished-NAME/            beside the dataset NAME, until it is complete
    settings.json            what every part depends on; parts of another conversion are removed
    000003/                  part 3, complete or absent
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pokevla.errors import DataError, EnvironmentSetupError
from pokevla.files.ownership import refuse_foreign
from pokevla.files.texts import read_json, write_json
from pokevla.files.writing import atomic_folder

_SETTINGS = "settings.json"
AGAIN = "Run the same command again."


def part_folder(folder: Path, number: int) -> Path:
    """Where a part lies."""
    return folder / f"{number:06d}"


def begun_folder(out: Path, identity: dict[str, Any], names: Iterable[str], *, shared: bool = False) -> Path:
    """The folder of the parts of `out`, emptied if its parts were made with another `identity`.

    Args:
        names: patterns of what the conversion writes into the folder (`forget`).
        shared: other processes may be using the folder: parts of another identity are refused, not removed.

    Raises:
        DataError: something in the folder was not written by a conversion, or writing failed; or see `shared`.
    """
    folder = out.with_name(f".unfinished-{out.name}")
    identity = json.loads(json.dumps(identity))
    if folder.exists() and _settings(folder) != identity:
        if shared:
            raise DataError(f"{folder} holds parts converted with other options.", "Remove it, or use its options.")
        forget(folder, names)
    if not folder.exists():
        write_json(folder / _SETTINGS, identity)
    return folder


def forget(folder: Path, names: Iterable[str]) -> None:
    """Remove the parts. Raises DataError if anything lies in the folder but settings and files named by the patterns
    `names`, such as `*/frames.bin`."""
    refuse_foreign(folder, "unfinished conversion", [_SETTINGS, ".tmp-**", *names])
    shutil.rmtree(folder)


def _settings(folder: Path) -> Any:
    try:
        return read_json(folder / _SETTINGS)
    except DataError:  # missing or damaged: parts of an unknown conversion are not used
        return None


@contextmanager
def new_part(folder: Path, number: int) -> Iterator[Path]:
    """Yield the folder of a new part, which is there complete or not at all.

    Raises:
        DiskFullError: disk full.
        EnvironmentSetupError: writing failed otherwise.
    """
    with atomic_folder(part_folder(folder, number), kind=EnvironmentSetupError) as new:
        yield new
