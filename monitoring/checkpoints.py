"""The checkpoints of a run at a glance: sizes are compared, checksums are not (`pokevla ckpt inspect` does that)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pokevla.errors import CheckpointError
from pokevla.runs.checkpoints import MARKER, is_healthy, list_checkpoints, read_info

Condition = Literal["healthy", "complete", "damaged"]
"""`complete`: the marker can be read and every file has the size that it says. `healthy`: and training went on well."""


@dataclass(frozen=True)
class CheckpointGlance:
    """One checkpoint that has its marker."""

    step: int
    saved_s: float  # seconds since 1970
    size_bytes: int
    condition: Condition


class CheckpointList:
    """The checkpoints of a run. The files of each are looked at once, so that watching asks little of the disk."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._seen: dict[tuple[Path, float], CheckpointGlance] = {}

    def refresh(self) -> list[CheckpointGlance]:
        """Those that are there now, oldest first."""
        present: dict[tuple[Path, float], CheckpointGlance] = {}
        for step, folder in list_checkpoints(self._run_dir):
            try:
                saved_s = (folder / MARKER).stat().st_mtime
            except FileNotFoundError:
                continue  # deleted between the listing and the question
            glance = self._seen.get((folder, saved_s)) or _glance(step, folder, saved_s)
            if glance.condition == "complete" and is_healthy(folder):
                glance = replace(glance, condition="healthy")
            present[folder, saved_s] = glance
        self._seen = present
        return list(present.values())


def _glance(step: int, folder: Path, saved_s: float) -> CheckpointGlance:
    try:
        files = read_info(folder).files
    except CheckpointError:
        return CheckpointGlance(step, saved_s, size_bytes=0, condition="damaged")
    whole = all(_size(folder / file.name) == file.size for file in files)
    size_bytes = sum(file.size for file in files)
    return CheckpointGlance(step, saved_s, size_bytes, "complete" if whole else "damaged")


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
