"""The checkpoints of a run as they lie on the disk: finding, verifying, deleting. No torch: it answers at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pokevla.errors import CheckpointError, PokeVLAError
from pokevla.files.checksums import StoredFile, measure_file
from pokevla.files.failures import named_error
from pokevla.files.names import TEMPORARY, remove_folder, temporary_name
from pokevla.files.texts import write_text
from pokevla.runs.directory import CHECKPOINTS

MARKER = "COMPLETE.json"
STATE = "state"
HEALTHY = "HEALTHY"
"""File in the folder of a checkpoint that a run went on from without trouble."""
CONVERTED = "universal"
"""Folder beside `state` with the same state for any number of ranks, made when it is needed."""
SCHEMA_VERSION = 2
FREE_SPACE = "Free some space, or lower checkpoint.keep_last; then go on with: pokevla resume RUN"
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class CheckpointInfo:
    """What COMPLETE.json says."""

    step: int
    position: int  # samples consumed globally
    world_size: int
    zero_stage: int
    precision: str
    recipe_hash: str
    frozen_hash: str  # of the weights that are not stored
    datasets: dict[str, str] = field(default_factory=dict)  # path -> fingerprint
    caches: dict[str, str] = field(default_factory=dict)  # path of the dataset -> fingerprint of its features
    settings: dict[str, Any] = field(default_factory=dict)  # that may be others after a resume: dotted field -> value
    files: tuple[StoredFile, ...] = ()
    recent_losses: tuple[float, ...] = ()  # what the spike guard goes on from
    skips: dict[str, int] = field(default_factory=dict)  # what the guard against bad steps goes on from
    metrics: dict[str, Any] = field(default_factory=dict)  # what is added up for the next line of metrics

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    """Final name of a checkpoint."""
    return run_dir / CHECKPOINTS / f"step-{step:08d}"


def temporary_folder(run_dir: Path, step: int) -> Path:
    """Where a checkpoint grows until it is complete."""
    return temporary_name(checkpoint_folder(run_dir, step))


def list_temporary(run_dir: Path) -> list[Path]:
    """Checkpoints that are being saved, or that a killed job has left half saved."""
    return sorted((run_dir / CHECKPOINTS).glob(f"{TEMPORARY}step-*"))


def save_error(error: BaseException, path: Path) -> PokeVLAError:
    """Name an error met while saving: DiskFullError or CheckpointError."""
    return named_error(error, path, kind=CheckpointError, remedy=FREE_SPACE)


def list_checkpoints(run_dir: Path) -> list[tuple[int, Path]]:
    """Checkpoints with a marker, oldest first: (step, folder)."""
    found = []
    for folder in (run_dir / CHECKPOINTS).glob("step-*"):
        match = _NAME.fullmatch(folder.name)
        if match and (folder / MARKER).is_file():
            found.append((int(match.group(1)), folder))
    return sorted(found)


def read_info(folder: Path) -> CheckpointInfo:
    """Read COMPLETE.json.

    Raises:
        CheckpointError: absent, unreadable, or of another schema version.
    """
    path = folder / MARKER
    try:
        content = json.loads(path.read_text())
        version = content.pop("schema_version")
        files = tuple(StoredFile(**file) for file in content.pop("files"))
        losses = tuple(content.pop("recent_losses", ()))
        info = CheckpointInfo(**content, files=files, recent_losses=losses)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}).", "Use another checkpoint.") from error
    if version != SCHEMA_VERSION:
        raise CheckpointError(f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}.")
    return info


def verify(folder: Path) -> CheckpointInfo:
    """Check every file of a checkpoint against COMPLETE.json.

    Raises:
        CheckpointError: the first file that is missing, of another size, or of another checksum.
    """
    info = read_info(folder)
    for expected in info.files:
        path = folder / expected.name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing.", "Use another checkpoint.")
        size = path.stat().st_size
        if size != expected.size:
            raise CheckpointError(f"{path} has {size} bytes instead of {expected.size}.", "Use another checkpoint.")
        if measure_file(folder, expected.name) != expected:
            raise CheckpointError(f"{path} is damaged: its checksum differs.", "Use another checkpoint.")
    return info


def latest_complete(
    run_dir: Path, on_damage: Callable[[str], None] = lambda message: None
) -> tuple[Path, CheckpointInfo] | None:
    """Find the newest checkpoint whose files are all right. Called by one rank.

    A damaged one is reported through `on_damage` and passed over for the one before it.

    Returns:
        (folder, info), or None when the run has no checkpoint yet.

    Raises:
        CheckpointError: there are checkpoints, and all of them are damaged.
    """
    candidates = list_checkpoints(run_dir)
    for _, folder in reversed(candidates):
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


def refuse_misfit(folder: Path, stored: CheckpointInfo, current: CheckpointInfo) -> None:
    """Refuse a checkpoint that this job cannot go on from. Another number of ranks is no reason.

    Raises:
        CheckpointError: another ZeRO stage, precision, recipe, dataset or frozen weights; says which and what to do.
    """
    for name, saved, wanted in (
        ("zero.stage", stored.zero_stage, current.zero_stage),
        ("precision", stored.precision, current.precision),
    ):
        if saved != wanted:
            raise CheckpointError(
                f"{folder} was saved with {name} {saved}, the run's recipe says {wanted}: its optimizer state cannot "
                "be converted.",
                f"Set {name} back to {saved} in recipe.yaml of the run directory, or train under another name.",
            )
    if stored.recipe_hash != current.recipe_hash:
        raise CheckpointError(
            f"{folder} was made by recipe {stored.recipe_hash[:12]}, this run's is {current.recipe_hash[:12]}.",
            "Undo the change of recipe.yaml in the run directory, or train under another name.",
        )
    for path, fingerprint in stored.datasets.items():
        if current.datasets.get(path) != fingerprint:
            raise CheckpointError(
                f"The dataset {path} has changed since step {stored.step}: fingerprint {current.datasets.get(path)} "
                f"instead of {fingerprint}. The samples that are left would not be those that have not been seen.",
                "Put the dataset back, or train under another name.",
            )
    for path, fingerprint in stored.caches.items():
        if current.caches.get(path) != fingerprint:
            raise CheckpointError(
                f"The cached features of {path} are not those that {folder} was trained with: fingerprint "
                f"{current.caches.get(path)} instead of {fingerprint}.",
                "Put back the teachers' weights that the recipe's `cache` names.",
            )
    if stored.frozen_hash != current.frozen_hash:
        raise CheckpointError(
            f"The frozen weights are not those that {folder} was trained with "
            f"({current.frozen_hash} instead of {stored.frozen_hash}).",
            "Restore the base model that the recipe's model.vlm named.",
        )


def mark_healthy(folder: Path, step: int) -> None:
    """Note that the run got to `step` from this checkpoint, all steps on the way being finite.

    Raises:
        DiskFullError: no room.
    """
    write_text(folder / HEALTHY, f"{step}\n", kind=CheckpointError, remedy=FREE_SPACE)


def is_healthy(folder: Path) -> bool:
    """Whether `mark_healthy` was called for a checkpoint."""
    return (folder / HEALTHY).is_file()


def remove_unfinished(run_dir: Path) -> None:
    """Delete what a killed job has left of a save. Called by one rank, while none saves."""
    for leftover in list_temporary(run_dir):
        remove_folder(leftover, MARKER)


def apply_retention(run_dir: Path, keep_last: int, keep_every_steps: int | None) -> list[int]:
    """Delete old checkpoints and abandoned temporary ones. Called by one rank; returns the deleted steps.

    Kept are the newest `keep_last`, every multiple of `keep_every_steps`, the newest healthy one, and the oldest one
    after it: were that deleted before its health is known, none would ever become the newest healthy one. Order is that
    of the steps; no clock is asked. Conversions to other world sizes are deleted, except the newest checkpoint's.
    """
    remove_unfinished(run_dir)
    checkpoints = list_checkpoints(run_dir)
    steps = [step for step, _ in checkpoints]
    healthy = max((step for step, folder in checkpoints if is_healthy(folder)), default=-1)
    kept = {*steps[-keep_last:], healthy, min((step for step in steps if step > healthy), default=-1)}
    if keep_every_steps is not None:
        kept |= {step for step in steps if step % keep_every_steps == 0}
    for step, folder in checkpoints:
        if step not in kept:
            remove_folder(folder, MARKER)
        elif step != steps[-1]:
            remove_folder(folder / CONVERTED, MARKER)
    return [step for step in steps if step not in kept]
