"""What may be written, replaced or deleted: never an input, and only folders in which everything was written by us."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pokevla.errors import DataError, PokeVLAError, UsageError

Ownership = Callable[[Path], None]
"""Raises a PokeVLAError unless the existing file or folder, and everything in it, was written by this program."""

_HEAD_BYTES = 4096
KEEP_OUT = "Choose another output: sources are never changed."


def refuse_overlap(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output that is, contains or lies in an input, however the two paths are spelled.

    Links are resolved, and existing folders are compared by device and inode, so that a bind mount or another spelling
    does not hide the overlap. Neither `out` nor the inputs need to exist.

    Raises:
        UsageError: names both paths.
    """
    out_chain = _identities(out)
    for path in inputs:
        chain = _identities(path)
        if chain[0] == out_chain[0]:
            relation = "is"
        elif out_chain[0] in chain:
            relation = "contains"
        elif chain[0] in out_chain:
            relation = "lies in"
        else:
            continue
        source = "its source" if out == path else f"the source {path}"
        raise UsageError(f"The output {out} {relation} {source}.", KEEP_OUT)


def _identities(path: Path) -> list[tuple[int, int] | str]:
    """Identity of a path, then of each folder above it: device and inode, or the name of what does not exist."""
    real = Path(os.path.realpath(path))
    return [_identity(one) for one in (real, *real.parents)]


def _identity(path: Path) -> tuple[int, int] | str:
    try:
        status = path.stat()
    except OSError:  # does not exist yet, or cannot be looked at: its name has to do
        return str(path)
    return status.st_dev, status.st_ino


def refuse_foreign(folder: Path, title: str, patterns: Sequence[str], *, kind: type[PokeVLAError] = DataError) -> None:
    """Refuse to replace or delete a folder in which anything lies that this program did not write there.

    Args:
        title: what the folder is, such as `dataset`.
        patterns: what we write, as in `foreign_entry`.

    Raises:
        PokeVLAError: a `kind` that names the first such file.
    """
    entry = foreign_entry(folder, patterns)
    if entry is not None:
        raise kind(
            f"{folder} is not replaced or deleted: {entry} does not belong to the {title}.",
            "Move it elsewhere, or choose another output.",
        )


def refuse_other_file(path: Path, signature: bytes, title: str) -> None:
    """Refuse to replace an existing file that does not have `signature` in its first 4 KiB.

    Raises:
        DataError: it is something else than the `title` that this program writes, or cannot be read.
    """
    if not os.path.lexists(path):
        return
    try:
        with path.open("rb") as file:
            if signature in file.read(_HEAD_BYTES):
                return
    except OSError:  # a folder, or unreadable: not replaced either
        pass
    raise DataError(f"{path} exists and is not a {title} of pokevla: it is not replaced.", "Choose another name.")


def foreign_entry(folder: Path, patterns: Sequence[str]) -> Path | None:
    """The first entry below `folder` that no pattern names; None if there is none. Empty folders do not count.

    A pattern is a path relative to `folder` in which `*` stands for any part of one name and `**` for any part of
    a path. A link, pipe or device is foreign wherever it lies, because we write none. Unreadable folders are foreign.
    """
    ours = re.compile("|".join(map(_expression, patterns)) or r"(?!)", re.DOTALL)
    for path in _files_below(folder):
        name = path.relative_to(folder).as_posix()
        if not stat.S_ISREG(path.lstat().st_mode) or not ours.fullmatch(name):
            return path
    return None


def literal(name: str) -> str:
    """`name` as a pattern of `foreign_entry` that only matches itself."""
    return name.replace("*", "[*]")


def _expression(pattern: str) -> str:
    pieces = re.split(r"(\[\*\]|\*\*|\*)", pattern)
    meanings = {"[*]": r"\*", "**": ".*", "*": "[^/]*"}
    return "(?:" + "".join(meanings.get(piece) or re.escape(piece) for piece in pieces) + ")"


def _files_below(folder: Path) -> Iterator[Path]:
    """Everything below `folder` but readable folders, sorted."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(Path(entry.path))
        else:
            yield Path(entry.path)


def names_below(folder: Path) -> list[str]:
    """Names, relative to `folder`, of everything below it but folders, sorted."""
    return [path.relative_to(folder).as_posix() for path in _files_below(folder)]
