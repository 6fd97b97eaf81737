"""Verifies the checksums of all checkpoints and lists every damaged file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from checkpoints_tools.source import existing_checkpoint, is_checkpoint_folder, step_of
from pokevla.errors import CheckpointError
from pokevla.files.checksums import StoredFile, measure_file
from pokevla.runs.checkpoints import MARKER, list_checkpoints, list_temporary, read_info
from pokevla.runs.directory import CHECKPOINTS, read_run_recipe


@dataclass
class Verified:
    """Result of verifying one checkpoint."""

    step: int
    folder: str
    files: int  # number of files checked
    size_bytes: int
    damaged: list[str] = field(default_factory=list)  # one sentence for each damaged file

    @property
    def is_good(self) -> bool:
        """Whether every file is unchanged since it was saved."""
        return not self.damaged

    def as_json(self) -> dict[str, Any]:
        """For a script."""
        return {**asdict(self), "good": self.is_good}


def verify_run(path: Path, step: int | None = None) -> list[Verified]:
    """Check all checkpoints of a run, or the one that `path` or `step` names. Oldest first; all damage is reported.

    Raises:
        UsageError: `path` is neither a run nor a checkpoint.
        CheckpointError: there is no checkpoint to verify.
    """
    if is_checkpoint_folder(path):
        run_dir, step = path.parent.parent, step_of(path)
    else:
        run_dir = path
    read_run_recipe(run_dir)
    if step is not None:
        return [verify_checkpoint(existing_checkpoint(run_dir, step))]
    folders = [folder for _, folder in list_checkpoints(run_dir)]
    if not folders:
        raise CheckpointError(f"{run_dir} has no complete checkpoint.", f"Continue with: pokevla resume {run_dir}")
    return [verify_checkpoint(folder) for folder in folders]


def verify_checkpoint(folder: Path) -> Verified:
    """Check all files of one complete checkpoint, even after a damaged one."""
    try:
        info = read_info(folder)
    except CheckpointError as error:
        return Verified(step_of(folder), str(folder), 0, 0, [error.message])
    result = Verified(info.step, str(folder), len(info.files), sum(file.size for file in info.files))
    for file in info.files:
        complaint = _complaint(folder, file)
        if complaint is not None:
            result.damaged.append(complaint)
    if not info.files:
        result.damaged.append(f"{folder / MARKER} names no files.")
    return result


def _complaint(folder: Path, expected: StoredFile) -> str | None:
    path = folder / expected.name
    try:
        size = path.stat().st_size
        if size != expected.size:
            return f"{path} has {size} bytes instead of {expected.size}."
        if measure_file(folder, expected.name) != expected:
            return f"{path} is damaged: its checksum differs."
    except FileNotFoundError:
        return f"{path} is missing."
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})."
    return None


def unfinished(run_dir: Path) -> list[Path]:
    """Folders without a marker, which do not count as checkpoints: partly written or partly deleted."""
    half = [folder for folder in (run_dir / CHECKPOINTS).glob("step-*") if not (folder / MARKER).is_file()]
    return sorted([*list_temporary(run_dir), *half])
