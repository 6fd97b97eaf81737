"""Is a checkpoint whole, and which is the newest whole one of a run? Without torch, so that commands start fast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pokevla.errors import CheckpointError
from pokevla.files.checksums import file_damage
from pokevla.runs.checkpoints import MARKER, USE_ANOTHER, CheckpointInfo, list_checkpoints, read_info
from pokevla.runs.directory import holds_recipe, read_run_recipe

OnDamage = Callable[[str], None]
"""Is told of each checkpoint that is passed over, and why."""


def damages(folder: Path, info: CheckpointInfo) -> Iterator[str]:
    """One sentence for everything in a checkpoint that is not as COMPLETE.json (`info`) describes it."""
    position = _expected_position(folder, info.step)
    if position is not None and info.position != position:
        yield f"{folder / MARKER} has position {info.position}; after {info.step} steps it is {position}."
    if not info.files:
        yield f"{folder / MARKER} names no files."
    for file in info.files:
        damage = file_damage(folder, file)
        if damage is not None:
            yield damage


def _expected_position(folder: Path, step: int) -> int | None:
    """Samples consumed after `step` steps of the run that `folder` belongs to; None outside of a run."""
    run_dir = folder.parent.parent
    return step * read_run_recipe(run_dir).batch.global_ if holds_recipe(run_dir) else None


def verify(folder: Path) -> CheckpointInfo:
    """Check COMPLETE.json of a checkpoint, and every file against it.

    Raises:
        CheckpointError: names the first file that is missing, cannot be read, or has another size or checksum.
    """
    info = read_info(folder)
    for damage in damages(folder, info):
        raise CheckpointError(damage, USE_ANOTHER)
    return info


def latest_complete(
    run_dir: Path, on_damage: OnDamage = lambda message: None, *, before: int | None = None
) -> tuple[Path, CheckpointInfo] | None:
    """Find the newest undamaged checkpoint, of a step before `before` if that is given. Called by one rank.

    One that is damaged or cannot be read is reported through `on_damage`, and the one before it is tried.

    Returns:
        (folder, info), or None when the run has no checkpoint yet.

    Raises:
        CheckpointError: there are checkpoints, and all of them are damaged, or they cannot be listed.
    """
    candidates = [folder for step, folder in list_checkpoints(run_dir) if before is None or step < before]
    for folder in reversed(candidates):
        try:
            return folder, verify(folder)
        except CheckpointError as error:
            on_damage(str(error))
    if candidates:
        raise CheckpointError(
            f"All {len(candidates)} checkpoints of {run_dir} are damaged.",
            "Restore one from a backup, or delete the folder `checkpoints` to start from step 0.",
        )
    return None
