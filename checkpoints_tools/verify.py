"""Verifies the checksums of all checkpoints and lists every damaged file."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from checkpoints_tools.source import existing_checkpoint, is_checkpoint_folder, step_of
from pokevla.errors import CheckpointError, command_line
from pokevla.runs.checkpoints import list_checkpoints, list_temporary, read_info
from pokevla.runs.directory import CHECKPOINTS, read_run_recipe
from pokevla.runs.verification import damages

_REMAINS = re.compile(r"step-\d{8,}(\.damaged(-\d+)?)?")


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
        raise CheckpointError(
            f"{run_dir} has no complete checkpoint.", f"Continue with: {command_line('resume', run_dir)}"
        )
    return [verify_checkpoint(folder) for folder in folders]


def verify_checkpoint(folder: Path) -> Verified:
    """Check all files of one complete checkpoint, even after a damaged one."""
    try:
        info = read_info(folder)
    except CheckpointError as error:
        return Verified(step_of(folder), str(folder), 0, 0, [error.message])
    return Verified(info.step, str(folder), len(info.files), info.size_bytes, list(damages(folder, info)))


def unfinished(run_dir: Path) -> list[Path]:
    """Folders without a marker, which do not count as checkpoints: partly written or partly deleted."""
    complete = {folder for _, folder in list_checkpoints(run_dir)}
    named = [folder for folder in (run_dir / CHECKPOINTS).glob("step-*") if _REMAINS.fullmatch(folder.name)]
    half = [folder for folder in named if folder not in complete]
    return sorted([*list_temporary(run_dir), *half])
