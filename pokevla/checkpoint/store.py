"""Checkpoints of a run: complete or absent.

    RUN/checkpoints/step-00000100/COMPLETE.json     written last; without it the folder does not count
                                  state/*.pt         DeepSpeed's files

DeepSpeed writes straight to final names, without fsync, and names the checkpoint `latest` before the other ranks are
done; a kill in between gives one that rank 0 loads and rank 1 does not. Here all ranks write under a temporary name,
agree that all succeeded, then rank 0 writes COMPLETE.json and renames (facts: measured, 0.05 s).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pokevla.checkpoint.files import (
    StoredFile,
    as_named_error,
    describe_file,
    fsync_folder,
    remove_folder,
    write_json_atomically,
)
from pokevla.distributed.collectives import barrier, broadcast_object, first_error, gather_objects
from pokevla.errors import CheckpointError, PokeVLAError

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

MARKER = "COMPLETE.json"
STATE = "state"
SCHEMA_VERSION = 1
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
    files: tuple[StoredFile, ...] = ()


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    """Final name of a checkpoint."""
    return run_dir / "checkpoints" / f"step-{step:08d}"


# ------------------------------------------------------------------------------------------------ saving


def save_checkpoint(engine: DeepSpeedEngine, run_dir: Path, info: CheckpointInfo) -> Path:
    """Save the engine's state. Called by all ranks; returns the final folder.

    Raises (on all ranks alike, with nothing left behind):
        DiskFullError: no room.
        CheckpointError: another failure to write.
    """
    from pokevla.checkpoint.writer import RecordingWriter

    final = checkpoint_folder(run_dir, info.step)
    temporary = final.with_name(f".tmp-{final.name}")
    main = engine.global_rank == 0
    _agree(_attempt(lambda: _make_empty(temporary), temporary) if main else None, temporary)
    writer = RecordingWriter(temporary)
    engine.checkpoint_engine = writer
    # Copies of scripts into every checkpoint: not wanted, and an error there would leave the other ranks waiting.
    engine._copy_recovery_script = lambda _folder: None
    engine.save_checkpoint(
        str(temporary),
        tag=STATE,
        client_state={"pokevla": {"step": info.step, "position": info.position}},
        save_latest=False,
        exclude_frozen_parameters=True,
    )
    _agree(writer.error, temporary)
    files = [file for part in gather_objects(writer.files) for file in part]
    complete = replace(info, files=tuple(sorted(files, key=lambda file: file.name)))
    _agree(_attempt(lambda: _commit(temporary, final, complete), final) if main else None, temporary)
    return final


def _attempt(action: Callable[[], None], path: Path) -> PokeVLAError | None:
    try:
        action()
    except OSError as error:
        return as_named_error(error, path)
    except PokeVLAError as error:
        return error
    return None


def _agree(error: PokeVLAError | None, temporary: Path) -> None:
    """All ranks go on, or all raise the first error; then the temporary folder is gone."""
    failure = first_error(error)
    if failure is None:
        return
    remove_folder(temporary, MARKER)
    barrier()
    raise failure[1]


def _make_empty(folder: Path) -> None:
    remove_folder(folder, MARKER)
    (folder / STATE).mkdir(parents=True)


def _commit(temporary: Path, final: Path, info: CheckpointInfo) -> None:
    fsync_folder(temporary / STATE)
    write_json_atomically(temporary / MARKER, {"schema_version": SCHEMA_VERSION, **asdict(info)})
    if final.exists():  # left over: incomplete, damaged, or of a future that was abandoned on resume
        remove_folder(final, MARKER)
    temporary.rename(final)
    fsync_folder(final.parent)


def apply_retention(run_dir: Path, keep_last: int, keep_every_steps: int | None) -> list[int]:
    """Delete old checkpoints and abandoned temporary ones. Called by one rank; returns the deleted steps.

    Kept are the newest `keep_last`, and every multiple of `keep_every_steps`.
    """
    for leftover in (run_dir / "checkpoints").glob(".tmp-step-*"):
        remove_folder(leftover, MARKER)
    steps = [step for step, _ in list_checkpoints(run_dir)]
    old = [step for step in steps[:-keep_last] if keep_every_steps is None or step % keep_every_steps]
    for step in old:
        remove_folder(checkpoint_folder(run_dir, step), MARKER)
    return old


# ------------------------------------------------------------------------------------------------ finding


def list_checkpoints(run_dir: Path) -> list[tuple[int, Path]]:
    """Checkpoints with a marker, oldest first: (step, folder)."""
    found = []
    for folder in (run_dir / "checkpoints").glob("step-*"):
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
        info = CheckpointInfo(**content, files=files)
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
        if describe_file(folder, expected.name) != expected:
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


# ------------------------------------------------------------------------------------------------ loading


def refuse_misfit(folder: Path, stored: CheckpointInfo, current: CheckpointInfo) -> None:
    """Refuse a checkpoint of another recipe, other frozen weights, or another number of ranks.

    Raises:
        CheckpointError: naming what differs and what to do.
    """
    if stored.recipe_hash != current.recipe_hash:
        raise CheckpointError(
            f"{folder} was made by recipe {stored.recipe_hash[:12]}, this run's is {current.recipe_hash[:12]}.",
            "Undo the change of recipe.yaml in the run directory, or train under another name.",
        )
    if stored.frozen_hash != current.frozen_hash:
        raise CheckpointError(
            f"The frozen weights are not those that {folder} was trained with "
            f"({current.frozen_hash} instead of {stored.frozen_hash}).",
            "Restore the base model that the recipe's model.vlm named.",
        )
    if stored.world_size != current.world_size:
        raise CheckpointError(
            f"{folder} was saved by {stored.world_size} ranks, this job has {current.world_size}.",
            f"Resume with {stored.world_size} ranks.",
        )


def load_checkpoint(engine: DeepSpeedEngine, folder: Path) -> None:
    """Load weights, optimizer state and gradient bookkeeping. Called by all ranks, after `refuse_misfit`.

    Raises (on all ranks alike):
        CheckpointError: a rank cannot load.
    """
    error: PokeVLAError | None = None
    try:
        # Not strict: frozen weights are not stored (they are checked by their hash).
        loaded, _ = engine.load_checkpoint(
            str(folder), tag=STATE, load_module_strict=False, load_lr_scheduler_states=False
        )
        if loaded is None:
            error = CheckpointError(f"{folder} holds nothing that DeepSpeed can load.", "Use another checkpoint.")
    except (OSError, RuntimeError, KeyError, AssertionError) as cause:
        error = CheckpointError(f"{folder} cannot be loaded: {cause}", "Use another checkpoint.")
    failure = first_error(error)
    if failure is not None:
        raise failure[1]


def find_on_all_ranks(
    run_dir: Path, is_main: bool, on_damage: Callable[[str], None]
) -> tuple[Path, CheckpointInfo] | None:
    """`latest_complete` on rank 0, told to all: no rank looks for itself, so that none finds another one."""
    found: tuple[Path, CheckpointInfo] | None = None
    error: PokeVLAError | None = None
    if is_main:
        try:
            found = latest_complete(run_dir, on_damage)
        except CheckpointError as cause:
            error = cause
    failure = first_error(error)
    if failure is not None:
        raise failure[1]
    return broadcast_object(found)
