"""Files of an evaluation that are there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pokevla.errors import NO_ROOM, DataError, DiskFullError

NOTHING_LEFT_BYTES = 1 << 20
"""With less than this free, a program that could not write and does not say why has met a full disk."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what is to become `path`: a name in the same folder with the same suffix.

    The file gets its final name when the block ends well; otherwise nothing of it is left, and an older `path` stays
    as it was. Raises DiskFullError when there is no room, DataError for any other failure to write.
    """
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _named(error, path) from error
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise _named(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def _named(error: OSError, path: Path) -> DataError:
    return cannot_write(path, error.strerror or str(error), full=error.errno in NO_ROOM)


def cannot_write(path: Path, reason: str, *, full: bool = False) -> DataError:
    """The error for `path`: DiskFullError when the caller knows it or the free space tells it, else DataError."""
    folder = next(folder for folder in path.absolute().parents if folder.is_dir())
    if full or shutil.disk_usage(folder).free < NOTHING_LEFT_BYTES:
        return DiskFullError(f"No room to write {path} ({reason}).", "Free some space and run it again.")
    return DataError(f"{path} could not be written ({reason}).", "Check the folder and its permissions.")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in the order of its keys. Errors as `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
