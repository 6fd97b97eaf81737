"""Temporary names, names that are made durable, and names that go away in a safe order."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

TEMPORARY = ".tmp-"
"""What every temporary name begins with."""


def temporary_name(path: Path) -> Path:
    """Where `path` grows until it is whole."""
    return path.with_name(f"{TEMPORARY}{path.name}")


def make_parents(path: Path) -> None:
    """Make the folders that `path` lies in. NotADirectoryError where a part of the path is a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from error


def put_in_place(new: Path, path: Path) -> None:
    """Give a file or folder that is whole its name, durably."""
    new.replace(path)
    fsync_folder(path.parent)


def remove_folder(folder: Path, marker: str) -> None:
    """Delete a folder, its marker first, so that a deletion cut short leaves nothing that looks complete."""
    (folder / marker).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def remove_leftover(path: Path) -> None:
    """Delete a temporary file or folder of a killed writer. Called by whoever knows that no writer is alive."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    _fsync(folder)


def fsync_tree(path: Path) -> None:
    """Make a file, or a folder with all that is below it, durable."""
    for folder, _, names in os.walk(path):
        for name in names:
            if not os.path.islink(os.path.join(folder, name)):
                _fsync(Path(folder, name))
        _fsync(Path(folder))
    if not path.is_dir():
        _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
