"""Files and folders that are complete or absent.

    FOLDER/.tmp-NAME             a file being written, or
    FOLDER/.tmp-NAME/NAME        a file or folder that a library writes by its path
    FOLDER/.tmp-NAME/.writer     its process
    FOLDER/NAME                  after the rename

The temporary name is locked while it is written. The next writer of the same name takes over what a killed writer left
behind, and two writers never mix. On a file system without locks the name is the only protection. A folder of the
temporary name that no writer of ours has made is never touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pokevla.errors import DataError, EnvironmentSetupError, PokeVLAError
from pokevla.files.failures import FREE_SPACE, naming_errors
from pokevla.files.holders import this_process
from pokevla.files.locks import is_locked, lock_within
from pokevla.files.names import fsync_folder, fsync_tree, make_parents, put_in_place, remove_leftover, temporary_name
from pokevla.files.ownership import Ownership

_REPLACED = ".replaced"
_WRITER = ".writer"
_WAIT_S = 10.0
"""How long to wait for another writer of the same file. Most files take milliseconds."""
_FOLDER_WAIT_S = 0.2
"""The same for what takes long to write: only as long as `refuse_second_writer` may hold the lock."""


@contextmanager
def atomic_file(
    path: Path,
    mode: str = "wb",
    *,
    durable: bool = True,
    kind: type[PokeVLAError] = DataError,
    remedy: str = FREE_SPACE,
) -> Iterator[IO[Any]]:
    """Yield a new file (`mode` "wb", or "w" in UTF-8) that becomes `path` if the block succeeds.

    A reader sees the old file or the new one, never a partial one. If the block fails, the old file stays and nothing
    else is left. Missing parents are created. `durable` syncs the content before the rename; turn it off for files that
    are replaced all the time.

    Raises:
        DiskFullError: disk full; has `remedy`.
        PokeVLAError: a `kind`: writing failed otherwise, or another process writes this file.
    """
    temporary = temporary_name(path)
    encoding = None if "b" in mode else "utf-8"
    with naming_errors(path, kind=kind, remedy=remedy):
        make_parents(path)
        with _claimed(temporary, path, kind, _WAIT_S) as descriptor:
            try:
                os.ftruncate(descriptor, 0)
                with open(descriptor, mode, encoding=encoding, closefd=False) as file:
                    yield file
                    file.flush()
                    if durable:
                        os.fsync(descriptor)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            if durable:
                fsync_folder(path.parent)


@contextmanager
def atomic_path(
    path: Path,
    *,
    replaces: Ownership | None = None,
    durable: bool = True,
    kind: type[PokeVLAError] = DataError,
    remedy: str = FREE_SPACE,
) -> Iterator[Path]:
    """Yield a path to write to, which becomes `path` if the block succeeds: for libraries that take a path, not a file.

    It has the name of `path` and lies in a temporary folder beside it, where the library may put temporary files of its
    own. Parents of `path` are created. An older file is replaced; `replaces` is called with it before the block and
    again before the rename, and raises if it must stay. Otherwise like `atomic_file` and `atomic_folder`.
    """
    path = path.resolve() if path.is_symlink() else path
    temporary = temporary_name(path)
    new = temporary / path.name
    with naming_errors(path, kind=kind, remedy=remedy):
        make_parents(path)
        with _claimed(temporary, path, kind, _FOLDER_WAIT_S, is_folder=True):
            try:
                _put_back(temporary / _REPLACED, path)
                _begin(temporary)
                _refuse_replacing(path, replaces, kind)
                yield new
                if durable:
                    fsync_tree(new)
                _refuse_replacing(path, replaces, kind)
                if path.is_dir():
                    path.rename(temporary / _REPLACED)
                put_in_place(new, path) if durable else new.replace(path)
            finally:
                _put_back(temporary / _REPLACED, path)
                shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_folder(
    path: Path,
    *,
    replaces: Ownership | None = None,
    durable: bool = True,
    kind: type[PokeVLAError] = DataError,
    remedy: str = FREE_SPACE,
) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` if the block succeeds, and is deleted otherwise.

    An existing folder is refused, or replaced if `replaces` does not raise for it; it stays until the new one is
    complete. `durable` syncs everything in the folder before the rename.

    Raises:
        DiskFullError: disk full; has `remedy`.
        PokeVLAError: a `kind`: `path` exists, another process writes it, or writing failed otherwise.
    """
    if path.is_file():
        raise kind(f"{path} exists.", "Choose another name.")
    with atomic_path(path, replaces=replaces, durable=durable, kind=kind, remedy=remedy) as new:
        new.mkdir()
        yield new


def refuse_second_writer(path: Path, *, kind: type[PokeVLAError] = DataError) -> None:
    """Refuse if a process is writing `path` with `atomic_path` or `atomic_folder`: a check before long preparations.

    The claim itself is atomic; this only says earlier what it would say.

    Raises:
        PokeVLAError: a `kind` that names the process.
    """
    temporary = temporary_name(path.resolve() if path.is_symlink() else path)
    with suppress(EnvironmentSetupError):  # no locks
        if temporary.is_dir() and is_locked(temporary):
            raise kind(f"{_writer(temporary)} is writing {path}.", "Wait until it ends.")


@contextmanager
def _claimed(
    temporary: Path, path: Path, kind: type[PokeVLAError], wait_s: float, *, is_folder: bool = False
) -> Iterator[int]:
    """Hold the temporary name of `path`; yields the descriptor of the file or folder, new or left by a killed writer.

    The lock belongs to the file, not to its name: once we hold it, the name may already belong to another file.
    """
    while True:
        if is_folder:
            temporary.mkdir(exist_ok=True)
        try:
            # Not through a link: what it points to is not ours.
            flags = os.O_NOFOLLOW | (os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_CREAT | os.O_RDWR)
            descriptor = os.open(temporary, flags, 0o666)
        except FileNotFoundError:
            if is_folder:  # removed since mkdir
                continue
            raise
        try:
            with suppress(EnvironmentSetupError):  # no locks: the name is the only protection
                if not lock_within(descriptor, wait_s):
                    raise kind(f"{_writer(temporary)} is writing {path}.", "Wait until it ends.")
            if _is_still(temporary, descriptor):
                if is_folder:
                    _refuse_unknown(temporary, path.name, kind)
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _writer(temporary: Path) -> str:
    """Who writes under a temporary name, for a message."""
    try:
        return f"Another process ({(temporary / _WRITER).read_text(encoding='utf-8')})"
    except (OSError, ValueError):  # a file, or a folder whose writer is just beginning or ending
        return "Another process"


def _refuse_unknown(temporary: Path, name: str, kind: type[PokeVLAError]) -> None:
    """Refuse a temporary folder that is not the one of a killed writer."""
    entries = {entry.name for entry in temporary.iterdir()}
    foreign = set() if _WRITER in entries else entries - {name, _REPLACED}
    if foreign:
        raise kind(
            f"{temporary} is in the way: it was not made by pokevla (it holds {min(foreign)}).", "Move it elsewhere."
        )


def _begin(temporary: Path) -> None:
    """Empty the locked temporary folder, and note who writes in it."""
    for entry in temporary.iterdir():
        remove_leftover(entry)
    with suppress(OSError):  # on a full disk, the content itself may still fit, or says what is wrong
        (temporary / _WRITER).write_text(this_process().describe(), encoding="utf-8")


def _refuse_replacing(path: Path, replaces: Ownership | None, kind: type[PokeVLAError]) -> None:
    """Refuse to replace a folder without proof, or what `replaces` refuses."""
    if not path.exists():
        return
    if replaces is not None:
        replaces(path)
    elif path.is_dir():
        raise kind(f"{path} exists.", "Choose another name.")


def _put_back(replaced: Path, path: Path) -> None:
    """Restore the old folder if the new one did not take its place."""
    if replaced.exists() and not path.exists():
        replaced.rename(path)
