"""Temporary names, durable renames, and deletion in a safe order."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from itertools import chain, count
from pathlib import Path

TEMPORARY = ".tmp-"
"""Prefix of every temporary name."""


def temporary_name(path: Path) -> Path:
    """Name under which `path` is written until it is complete."""
    return path.with_name(f"{TEMPORARY}{path.name}")


def make_parents(path: Path) -> None:
    """Make the folders that `path` lies in. NotADirectoryError where a part of the path is a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from error


def put_in_place(new: Path, path: Path) -> None:
    """Rename a complete file or folder to its final name, and sync the parent folder."""
    new.replace(path)
    fsync_folder(path.parent)


def remove_folder(folder: Path, marker: str) -> None:
    """Delete a folder, its marker first, so that an interrupted deletion leaves nothing that looks complete."""
    remove_leftover(folder / marker)
    shutil.rmtree(folder, ignore_errors=True)


def make_way(folder: Path, marker: str, *, keep: bool = False) -> None:
    """`remove_folder`; or `set_aside` with `keep`, or if that is not possible, for example because the folder cannot be
    read."""
    if not keep:
        with suppress(OSError):
            remove_folder(folder, marker)
    if os.path.lexists(folder):
        set_aside(folder)


def set_aside(path: Path) -> Path:
    """Rename a file or folder to a name that does not count, `NAME.damaged`, `NAME.damaged-2`, ... Returns it."""
    suffixes = chain([""], (f"-{number}" for number in count(2)))
    names = (path.with_name(f"{path.name}.damaged{suffix}") for suffix in suffixes)
    aside = next(name for name in names if not os.path.lexists(name))
    path.rename(aside)
    return aside


def remove_leftover(path: Path) -> None:
    """Delete the temporary file or folder of a killed writer. The caller makes sure that no writer is alive."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk."""
    _fsync(folder)


def fsync_tree(path: Path) -> None:
    """Sync a file, or a folder and everything below it, to disk."""
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
