"""An OSError met while writing becomes a named error that says what to do."""

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
    errno.ENOENT: "A folder of this path does not exist, or was deleted meanwhile.",
    errno.EIO: "The disk or the connection to it fails: look at the system's log, or write to another disk.",
    errno.ESTALE: "The network file system was mounted anew meanwhile: run it again.",
}


def named_error(
    error: BaseException, path: Path, *, kind: type[PokeVLAError] = DataError, remedy: str = FREE_SPACE
) -> PokeVLAError:
    """Name an error met while writing `path`.

    `remedy` is what the user can do about a full disk. What else the operating system refuses becomes a `kind`, with
    the remedy that its error number calls for; what it says is looked for in the causes of `error` too (torch wraps
    the OSError of the file below) and in its text (where HDF5 leaves it).
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
    """Turn an OSError of the block into what `named_error` makes of it."""
    try:
        yield
    except OSError as error:
        raise named_error(error, path, kind=kind, remedy=remedy) from error


def free_bytes(path: Path) -> int:
    """Room on the disk that `path` lies on or will lie on."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _cause_of(error: BaseException) -> tuple[int | None, str]:
    """Error number and text of a full disk anywhere in the chain of causes, else of the error itself."""
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
    except OSError:  # a disk that fails in such a way does not tell its free space either
        return ""
