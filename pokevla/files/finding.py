"""Finds input files below a folder, without losing any in silence."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pokevla.errors import DataError
from pokevla.files.names import TEMPORARY


@dataclass(frozen=True)
class FoundFiles:
    """Result of `find_files`."""

    files: list[Path]
    """Sorted."""
    passed_over: list[str]
    """What lies below the folder and is not among the files, one phrase for each kind."""

    def notes(self) -> list[str]:
        """Sentences for the user."""
        return [f"passed over {phrase}" for phrase in self.passed_over]


def find_files(source: Path, suffix: str) -> FoundFiles:
    """The file `source` itself, or all files below a folder whose names end in `suffix`.

    Links to folders are followed. A folder that several links lead to is read once, under its own name if that is
    below `source`. Unfinished files of a writer (`.tmp-...`) are passed over.

    Raises:
        DataError: there is no such file, a folder cannot be read, or a link leads nowhere. Names it.
    """
    if source.is_file():
        return FoundFiles([source], [])
    if not source.exists():
        raise DataError(f"{source}: no such file or folder.", "Check the path.")
    files: list[Path] = []
    others: Counter[str] = Counter()
    repeated: list[Path] = []
    seen: set[tuple[int, int]] = set()
    folders, links = deque([source]), deque[Path]()
    while folders or links:
        folder = (folders or links).popleft()  # links last: a folder keeps its own name
        identity = _identity(folder)
        if identity in seen:
            repeated.append(folder)
            continue
        seen.add(identity)
        for entry in _entries(folder):
            path = Path(entry.path)
            if entry.name.startswith(TEMPORARY):
                others["unfinished (.tmp-)"] += 1
            elif not _leads_somewhere(path):
                raise DataError(f"{path} is a link to the missing {os.readlink(path)}.", "Repair or remove it.")
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(path)
            elif entry.name.endswith(suffix):
                files.append(path)
            else:
                others[path.suffix or "no suffix"] += 1
    passed_over = _phrases(suffix, others, repeated)
    if not files:
        raise DataError(f"{source}: no *{suffix} below it{_but(passed_over)}.", "Check the path.")
    return FoundFiles(sorted(files), passed_over)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read ({error.strerror}).", "Check its permissions.") from error


def _leads_somewhere(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"{path} cannot be reached ({error.strerror}).", "Check the permissions.") from error


def _but(passed_over: Sequence[str]) -> str:
    return f", only {' and '.join(passed_over)}" if passed_over else ""


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _phrases(suffix: str, others: Counter[str], repeated: Sequence[Path]) -> list[str]:
    phrases = []
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        phrases.append(f"{sum(others.values())} files that are not *{suffix} ({kinds})")
    if repeated:
        phrases.append(f"{len(repeated)} links to folders that are read anyway (such as {repeated[0]})")
    return phrases
