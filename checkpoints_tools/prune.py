"""Retention by hand: which checkpoints of a run go, which stay and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from checkpoints_tools.source import existing_checkpoint
from checkpoints_tools.verify import unfinished, verify_checkpoint
from pokevla.errors import CheckpointError, UsageError
from pokevla.files.names import remove_folder
from pokevla.runs.checkpoints import MARKER, is_healthy, list_checkpoints
from pokevla.runs.creation import run_lock
from pokevla.runs.directory import read_run_recipe


@dataclass(frozen=True)
class Planned:
    """What happens to one checkpoint, or to the remains of one."""

    folder: Path
    step: int | None  # None for remains, which do not count as a checkpoint
    size_bytes: int
    kept_because: str | None  # None: it goes

    def as_json(self) -> dict[str, Any]:
        """For a script."""
        return {**asdict(self), "folder": str(self.folder), "deleted": self.kept_because is None}


def plan_prune(
    run_dir: Path,
    *,
    keep_last: int | None = None,
    keep_every_steps: int | None = None,
    steps: Sequence[int] = (),
    force: bool = False,
) -> list[Planned]:
    """Decide what goes. Nothing is touched.

    By default the recipe's own retention decides: the newest `checkpoint.keep_last` stay, and every multiple of
    `checkpoint.keep_every_steps`. `keep_last` and `keep_every_steps` replace these; `steps` names what goes instead.

    The newest whole checkpoint, the newest healthy one and the recipe's milestones stay unless `force`; `steps` that
    name one of them are refused.

    Raises:
        UsageError: `run_dir` is no run, or `steps` together with another rule.
        CheckpointError: a step without a checkpoint, or a protected one.
    """
    recipe = read_run_recipe(run_dir)
    if steps and (keep_last is not None or keep_every_steps is not None):
        raise UsageError("--step names what goes, --keep-last and --keep-every say what stays.", "Give one of them.")
    milestones = recipe.checkpoint.keep_every_steps
    found = list_checkpoints(run_dir)
    protected = {} if force else _protected(found, milestones)
    if steps:
        for step in steps:
            existing_checkpoint(run_dir, step)
            if step in protected:
                raise CheckpointError(f"Step {step} is {protected[step]}.", "Delete it all the same with --force.")
        kept = {step: "not named" for step, _ in found if step not in steps}
    else:
        newest = keep_last if keep_last is not None else recipe.checkpoint.keep_last
        every = keep_every_steps if keep_every_steps is not None else milestones
        kept = {step: f"of the newest {newest}" for step, _ in found[max(len(found) - newest, 0) :]}
        kept |= {step: f"a multiple of {every}" for step, _ in found if every is not None and step % every == 0}
        kept |= protected
    plan = [Planned(folder, step, folder_bytes(folder), kept.get(step)) for step, folder in found]
    return plan + [Planned(folder, None, folder_bytes(folder), None) for folder in unfinished(run_dir)]


def _protected(found: Sequence[tuple[int, Path]], milestones: int | None) -> dict[int, str]:
    """Step -> what makes it precious."""
    protected: dict[int, str] = {}
    if milestones is not None:
        protected |= {step: f"a milestone (every {milestones})" for step, _ in found if step % milestones == 0}
    healthy = [step for step, folder in found if is_healthy(folder)]
    if healthy:
        protected[healthy[-1]] = "the newest healthy one"
    for step, folder in reversed(found):
        if verify_checkpoint(folder).is_good:
            protected[step] = "the newest whole one"
            break
    return protected


def prune(run_dir: Path, plan: Sequence[Planned]) -> int:
    """Carry out a plan; returns the bytes that were freed. A marker goes first, so that nothing half deleted counts.

    Raises:
        UsageError: the run is being trained: its own retention is at work, and what looks like remains may be a save.
    """
    with run_lock(run_dir):
        for item in plan:
            if item.kept_because is None:
                remove_folder(item.folder, MARKER)
    return sum(item.size_bytes for item in plan if item.kept_because is None)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
