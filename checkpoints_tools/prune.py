"""Deletes checkpoints by hand: plans which of a run are deleted and which are kept, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from checkpoints_tools.source import existing_checkpoint
from checkpoints_tools.verify import unfinished, verify_checkpoint
from pokevla.errors import CheckpointError, UsageError
from pokevla.runs.checkpoints import foreign_in, is_healthy, list_checkpoints, remove_checkpoint
from pokevla.runs.creation import run_lock
from pokevla.runs.directory import read_run_recipe


@dataclass(frozen=True)
class PlannedFolder:
    """A checkpoint, or the remains of an interrupted save, and whether to delete it."""

    folder: Path
    step: int | None  # None for remains, which do not count as a checkpoint
    size_bytes: int
    kept_because: str | None  # None: it is deleted

    def as_json(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "folder": str(self.folder), "deleted": self.kept_because is None}


def plan_prune(
    run_dir: Path,
    *,
    keep_last: int | None = None,
    keep_every_steps: int | None = None,
    steps: Sequence[int] = (),
    force: bool = False,
) -> list[PlannedFolder]:
    """Decide what to delete, without deleting anything.

    By default the recipe's retention applies: the newest `checkpoint.keep_last` are kept, and every multiple of
    `checkpoint.keep_every_steps`. `keep_last` and `keep_every_steps` replace these values; `steps` names the
    checkpoints to delete instead.

    The newest undamaged checkpoint, the newest healthy one and the recipe's milestones are kept unless `force`; naming
    one of them in `steps` is an error.

    Raises:
        UsageError: `run_dir` is not a run, or `steps` is combined with another rule.
        CheckpointError: a step has no checkpoint or a protected one.
    """
    recipe = read_run_recipe(run_dir)
    if steps and (keep_last is not None or keep_every_steps is not None):
        raise UsageError(
            "--step names what to delete, --keep-last and --keep-every what to keep.", "Use only one of them."
        )
    milestones = recipe.checkpoint.keep_every_steps
    checkpoints = list_checkpoints(run_dir)
    protected = {} if force else _protected(checkpoints, milestones)
    if steps:
        for step in steps:
            existing_checkpoint(run_dir, step)
            if step in protected:
                raise CheckpointError(f"Step {step} is {protected[step]}.", "Delete it anyway with --force.")
        kept = {step: "not named" for step, _ in checkpoints if step not in steps}
    else:
        newest = keep_last if keep_last is not None else recipe.checkpoint.keep_last
        every = keep_every_steps if keep_every_steps is not None else milestones
        kept = {step: f"of the newest {newest}" for step, _ in checkpoints[max(len(checkpoints) - newest, 0) :]}
        kept |= {step: f"a multiple of {every}" for step, _ in checkpoints if every is not None and step % every == 0}
        kept |= protected
    plan = [_planned(folder, step, kept.get(step)) for step, folder in checkpoints]
    return plan + [_planned(folder, None, None) for folder in unfinished(run_dir)]


def _planned(folder: Path, step: int | None, kept_because: str | None) -> PlannedFolder:
    """The plan for one folder. One that holds anything else is kept, also with `force`."""
    foreign = None if kept_because is not None else foreign_in(folder)
    reason = kept_because if foreign is None else f"{foreign} does not belong to it"
    return PlannedFolder(folder, step, folder_bytes(folder), reason)


def _protected(checkpoints: Sequence[tuple[int, Path]], milestones: int | None) -> dict[int, str]:
    """Step -> why the checkpoint must be kept."""
    protected: dict[int, str] = {}
    if milestones is not None:
        protected |= {step: f"a milestone (every {milestones})" for step, _ in checkpoints if step % milestones == 0}
    healthy = [step for step, folder in checkpoints if is_healthy(folder)]
    if healthy:
        protected[healthy[-1]] = "the newest healthy one"
    for step, folder in reversed(checkpoints):
        if verify_checkpoint(folder).is_good:
            protected[step] = "the newest undamaged one"
            break
    return protected


def prune(run_dir: Path, plan: Sequence[PlannedFolder]) -> int:
    """Carry out a plan; returns the freed bytes. Deletes markers first, so that nothing partly deleted looks complete.

    Raises:
        UsageError: the run is being trained: it deletes checkpoints itself, and remains may be a save in progress.
    """
    with run_lock(run_dir):
        for item in plan:
            if item.kept_because is None:
                remove_checkpoint(item.folder)
    return sum(item.size_bytes for item in plan if item.kept_because is None)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
