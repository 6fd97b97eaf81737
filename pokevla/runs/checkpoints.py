"""The checkpoints of a run on disk: listing, describing, deleting. Without torch, so that commands start fast."""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pokevla.errors import CheckpointError, PokeVLAError
from pokevla.files.checksums import StoredFile, stored_files, with_checksum, without_checksum
from pokevla.files.failures import named_error
from pokevla.files.names import TEMPORARY, remove_folder, temporary_name
from pokevla.files.ownership import foreign_entry, literal
from pokevla.files.texts import read_json, write_json, write_text
from pokevla.runs.directory import CHECKPOINTS

MARKER = "COMPLETE.json"
STATE = "state"
HEALTHY = "HEALTHY"
"""File that marks a checkpoint after which training continued with finite losses and gradients."""
CONVERTED = "universal"
"""Folder beside `state` with the same state for any number of ranks, created when needed."""
SCHEMA_VERSION = 2
FREE_SPACE = "Free some space, or lower checkpoint.keep_last; then continue with: pokevla resume RUN"
USE_ANOTHER = "Use another checkpoint."
_CONTENTS = (MARKER, HEALTHY, f"{STATE}/*.pt", f"{CONVERTED}/**", f"{TEMPORARY}*", f"{TEMPORARY}*/**")
"""What we write into a checkpoint, also into one that is incomplete."""
_NAME = re.compile(r"step-(\d{8,})")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointInfo:
    """Content of COMPLETE.json."""

    step: int
    position: int  # samples consumed globally
    world_size: int
    zero_stage: int
    precision: str
    recipe_hash: str
    frozen_hash: str  # of the weights that are not stored
    datasets: dict[str, str] = field(default_factory=dict)  # path -> fingerprint
    embodiment: dict[str, Any] = field(default_factory=dict)  # description of the robot; empty for a PokeVLM
    caches: dict[str, str] = field(default_factory=dict)  # path of the dataset -> fingerprint of its features
    settings: dict[str, Any] = field(default_factory=dict)  # that a resume may change: dotted field -> value
    files: tuple[StoredFile, ...] = ()
    recent_losses: tuple[float, ...] = ()  # state of the spike guard
    skips: dict[str, int] = field(default_factory=dict)  # state of the guard against non-finite steps
    metrics: dict[str, Any] = field(default_factory=dict)  # sums for the next line of metrics

    @property
    def size_bytes(self) -> int:
        """Total size of all files."""
        return sum(file.size for file in self.files)


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    """Final name of a checkpoint."""
    return run_dir / CHECKPOINTS / f"step-{step:08d}"


def temporary_folder(run_dir: Path, step: int) -> Path:
    """Folder in which a checkpoint is written until it is complete."""
    return temporary_name(checkpoint_folder(run_dir, step))


def list_temporary(run_dir: Path) -> list[Path]:
    """Incomplete checkpoints: being saved, or left by a killed job."""
    return sorted((run_dir / CHECKPOINTS).glob(f"{TEMPORARY}step-*"))


def save_error(error: BaseException, path: Path) -> PokeVLAError:
    """Named error for an error raised while saving: DiskFullError or CheckpointError."""
    return named_error(error, path, kind=CheckpointError, remedy=FREE_SPACE)


def list_checkpoints(run_dir: Path) -> list[tuple[int, Path]]:
    """Checkpoints with a marker, oldest first: (step, folder). A marker that cannot be reached counts: `read_info` says
    what is wrong with it.

    Raises:
        CheckpointError: the folder of the checkpoints exists and cannot be listed.
    """
    parent = run_dir / CHECKPOINTS
    try:
        names = os.listdir(parent)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(
            f"The checkpoints in {parent} cannot be listed ({error.strerror}).", "Check the disk and your permissions."
        ) from error
    matches = [match for name in names if (match := _NAME.fullmatch(name)) and _has_marker(parent / name)]
    return sorted((int(match.group(1)), parent / match.group()) for match in matches)


def _has_marker(folder: Path) -> bool:
    try:
        os.lstat(folder / MARKER)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # no permission, or the disk fails
        return True
    return True


def write_info(folder: Path, info: CheckpointInfo) -> None:
    """Write COMPLETE.json, with its own checksum.

    Raises:
        CheckpointError: writing failed. DiskFullError: disk full.
    """
    content = with_checksum({"schema_version": SCHEMA_VERSION, **asdict(info)})
    write_json(folder / MARKER, content, sort_keys=True, kind=CheckpointError, remedy=FREE_SPACE)


def read_info(folder: Path) -> CheckpointInfo:
    """Read COMPLETE.json.

    Raises:
        CheckpointError: it is missing, unreadable, damaged, of another step, or has another schema version.
    """
    path = folder / MARKER
    # The metrics may hold a gradient norm that is not finite: that of a skipped step.
    content = read_json(path, non_finite=True, kind=CheckpointError, remedy=USE_ANOTHER)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise CheckpointError(f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}.", USE_ANOTHER)
    content = without_checksum(content, path, kind=CheckpointError, remedy=USE_ANOTHER)
    del content["schema_version"]
    try:
        files = stored_files(content.pop("files"), path, kind=CheckpointError, remedy=USE_ANOTHER)
        losses = tuple(content.pop("recent_losses", ()))
        info = CheckpointInfo(**content, files=files, recent_losses=losses)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error!r}).", USE_ANOTHER) from error
    match = _NAME.fullmatch(folder.name)
    if match and info.step != int(match.group(1)):
        raise CheckpointError(f"{path} is damaged: it describes step {info.step}.", USE_ANOTHER)
    return info


def refuse_misfit(folder: Path, stored: CheckpointInfo, current: CheckpointInfo) -> None:
    """Refuse a checkpoint that this job cannot continue from. Another number of ranks is allowed.

    Raises:
        CheckpointError: another ZeRO stage, precision, recipe, dataset or frozen weights; says which and what to do.
    """
    for name, saved, required in (
        ("zero.stage", stored.zero_stage, current.zero_stage),
        ("precision", stored.precision, current.precision),
    ):
        if saved != required:
            raise CheckpointError(
                f"{folder} was saved with {name} {saved}, the run's recipe has {required}: its optimizer state cannot "
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
                f"instead of {fingerprint}. The remaining samples would not be those the run has not seen.",
                "Restore the dataset, or train under another name.",
            )
    for path, fingerprint in stored.caches.items():
        if current.caches.get(path) != fingerprint:
            raise CheckpointError(
                f"The cached features of {path} are not those that {folder} was trained with: fingerprint "
                f"{current.caches.get(path)} instead of {fingerprint}.",
                "Restore the teachers' weights that the recipe's `cache` names.",
            )
    if stored.frozen_hash != current.frozen_hash:
        raise CheckpointError(
            f"The frozen weights are not those that {folder} was trained with "
            f"({current.frozen_hash} instead of {stored.frozen_hash}).",
            "Restore what the recipe's model.vlm and model.sam named.",
        )


def mark_healthy(folder: Path, step: int) -> None:
    """Mark a checkpoint as healthy: all steps from it up to `step` were finite.

    Raises:
        DiskFullError: disk full.
    """
    write_text(folder / HEALTHY, f"{step}\n", kind=CheckpointError, remedy=FREE_SPACE)


def is_healthy(folder: Path) -> bool:
    """Whether the checkpoint was marked by `mark_healthy`."""
    return os.path.isfile(folder / HEALTHY)  # False also where the folder cannot be read


def foreign_in(folder: Path) -> Path | None:
    """What lies in a checkpoint, or in the remains of one, without belonging to it; None if there is nothing.

    It is the folder itself if that is a link: the checkpoint lies elsewhere, where it was put on purpose.
    """
    if folder.is_symlink():
        return folder
    with suppress(CheckpointError):
        return foreign_entry(folder, [*_CONTENTS, *(literal(file.name) for file in read_info(folder).files)])
    return foreign_entry(folder, _CONTENTS)


def remove_checkpoint(folder: Path) -> bool:
    """Delete a checkpoint, or the remains of one, its marker first. Returns False if it is kept, with a warning,
    because something lies in it that does not belong to it."""
    foreign = foreign_in(folder)
    if foreign is not None:
        logger.warning("%s is not deleted: %s does not belong to it. Move that elsewhere.", folder, foreign)
        return False
    remove_folder(folder, MARKER)
    return True


def remove_unfinished(run_dir: Path) -> None:
    """Delete incomplete checkpoints of killed jobs. Called by one rank, while none is saving."""
    for leftover in list_temporary(run_dir):
        remove_checkpoint(leftover)


def apply_retention(run_dir: Path, saved_step: int, keep_last: int, keep_every_steps: int | None) -> list[int]:
    """Delete old checkpoints and abandoned temporary ones. Called by one rank, after it has saved `saved_step`; returns
    the deleted steps.

    Kept are the newest `keep_last`, every multiple of `keep_every_steps`, the newest healthy one, and the oldest one
    after it, which is the next candidate to become healthy. The order is that of the steps, not of time stamps.
    Conversions to other world sizes are deleted, except that of the newest checkpoint.

    One that holds anything else is kept, and its marker with it.

    Checkpoints of later steps are those that this run has passed over as damaged when it resumed. They are not touched
    and do not count: they must not displace good ones.

    Raises:
        CheckpointError: the checkpoints cannot be listed. OSError: one of them cannot be deleted.
    """
    remove_unfinished(run_dir)
    checkpoints = [(step, folder) for step, folder in list_checkpoints(run_dir) if step <= saved_step]
    steps = [step for step, _ in checkpoints]
    healthy = max((step for step, folder in checkpoints if is_healthy(folder)), default=-1)
    kept = {*steps[-keep_last:], healthy, min((step for step in steps if step > healthy), default=-1)}
    if keep_every_steps is not None:
        kept |= {step for step in steps if step % keep_every_steps == 0}
    for step, folder in checkpoints:
        if step in kept and step != steps[-1] and foreign_in(folder) is None:
            remove_folder(folder / CONVERTED, MARKER)
    return [step for step, folder in checkpoints if step not in kept and remove_checkpoint(folder)]
