"""Status of a run's checkpoints: compares file sizes, not checksums (`pokevla ckpt inspect` does that)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pokevla.errors import CheckpointError
from pokevla.runs.checkpoints import MARKER, is_healthy, list_checkpoints, read_info

Condition = Literal["healthy", "complete", "damaged"]
"""`complete`: the marker is readable and every file has its recorded size. `healthy`: also, training continued well."""


@dataclass(frozen=True)
class CheckpointStatus:
    """Status of one checkpoint that has a marker."""

    step: int
    saved_s: float  # seconds since 1970
    size_bytes: int
    condition: Condition


class CheckpointList:
    """The checkpoints of a run. The files of each are checked once, so that watching causes little disk traffic."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._seen: dict[tuple[Path, float], CheckpointStatus] = {}

    def refresh(self) -> list[CheckpointStatus]:
        """Status of the current checkpoints, oldest first."""
        present: dict[tuple[Path, float], CheckpointStatus] = {}
        for step, folder in list_checkpoints(self._run_dir):
            try:
                saved_s = (folder / MARKER).stat().st_mtime
            except FileNotFoundError:
                continue  # deleted since it was listed
            status = self._seen.get((folder, saved_s)) or _status(step, folder, saved_s)
            if status.condition == "complete" and is_healthy(folder):
                status = replace(status, condition="healthy")
            present[folder, saved_s] = status
        self._seen = present
        return list(present.values())


def _status(step: int, folder: Path, saved_s: float) -> CheckpointStatus:
    try:
        files = read_info(folder).files
    except CheckpointError:
        return CheckpointStatus(step, saved_s, size_bytes=0, condition="damaged")
    is_complete = all(_size(folder / file.name) == file.size for file in files)
    size_bytes = sum(file.size for file in files)
    return CheckpointStatus(step, saved_s, size_bytes, "complete" if is_complete else "damaged")


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
