"""Turns an OSError raised while writing into a named error that says what to do."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pokevla.errors import NO_ROOM, DataError, DiskFullError, PokeVLAError

FREE_SPACE = "Free some space and run it again."
CHECK_FOLDER = "Check the folder and its permissions."
_REMEDIES = {
    errno.EACCES: "Ask its owner for the right to write there, or choose another folder.",
    errno.EPERM: "Ask its owner for the right to write there, or choose another folder.",
    errno.EROFS: "This file system is mounted read-only: choose another folder.",
    errno.ENOTDIR: "A part of this path is a file: choose another folder.",
    errno.EEXIST: "A file or folder of this name is in the way: choose another name.",
    errno.ENOTEMPTY: "A folder of this name is in the way: choose another name.",
    errno.EISDIR: "A folder of this name is in the way: choose another name.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ENOENT: "A folder of this path does not exist, or was deleted in the meantime.",
    errno.EIO: "The disk or the connection to it is failing: check the system log, or write to another disk.",
    errno.ESTALE: "The network file system was remounted in the meantime: run it again.",
}


def named_error(
    error: BaseException, path: Path, *, kind: type[PokeVLAError] = DataError, remedy: str = FREE_SPACE
) -> PokeVLAError:
    """Named error for `error`, which was raised while writing `path`.

    A full disk becomes a DiskFullError with `remedy`. Any other OSError becomes a `kind` with the remedy for its error
    number. The error number is also searched for in the causes of `error` (torch wraps the OSError of its file) and in
    its text (HDF5 has it only there).
    """
    code, reason = _cause_of(error)
    if code in NO_ROOM:
        return DiskFullError(f"No room to write {path} ({reason}{_free(path)}).", remedy)
    if not isinstance(error, OSError):
        return kind(f"Cannot write {path}: {error}")
    if error.filename is not None:
        other = os.fsdecode(error.filename)
        reason += "" if other.endswith(path.name) else f": {other}"  # not `path` under its temporary name
    return kind(f"Cannot write {path} ({reason}).", _REMEDIES.get(code or 0, CHECK_FOLDER))


@contextmanager
def naming_errors(path: Path, *, kind: type[PokeVLAError] = DataError, remedy: str = FREE_SPACE) -> Iterator[None]:
    """Raise an OSError of the block as the `named_error` for it."""
    try:
        yield
    except OSError as error:
        raise named_error(error, path, kind=kind, remedy=remedy) from error


def free_bytes(path: Path) -> int:
    """Free bytes of the disk that holds `path`, which need not exist yet."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _cause_of(error: BaseException) -> tuple[int | None, str]:
    """Error number and text: of a full disk anywhere in the chain of causes, otherwise of the error itself."""
    cause: BaseException | None = error
    while cause is not None:
        code = _number_of(cause)
        if code in NO_ROOM:
            return code, os.strerror(code)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError) and error.strerror:
        return error.errno, error.strerror
    return _number_of(error), str(error)


def _number_of(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    in_text = re.search(r"errno = (\d+)", str(error))
    return int(in_text.group(1)) if in_text else None


def _free(path: Path) -> str:
    try:
        return f"; {free_bytes(path) / 2**20:.0f} MiB free there"
    except OSError:  # the disk does not even report its free space
        return ""
