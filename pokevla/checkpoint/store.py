"""Checkpoints of a run: complete or absent.

    RUN/checkpoints/step-00000100/COMPLETE.json     written last; without it the folder does not count
                                  state/*.pt         DeepSpeed's files

DeepSpeed writes straight to final names, without fsync, and names the checkpoint `latest` before the other ranks are
done; a kill in between gives one that rank 0 loads and rank 1 does not. Here all ranks write under a temporary name,
agree that all succeeded, then rank 0 writes COMPLETE.json and renames (facts: measured, 0.05 s).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pokevla.checkpoint.catalogue import (
    MARKER,
    SCHEMA_VERSION,
    STATE,
    CheckpointInfo,
    checkpoint_folder,
    latest_complete,
)
from pokevla.checkpoint.files import as_named_error, fsync_folder, remove_folder, write_json_atomically
from pokevla.distributed.collectives import barrier, broadcast_object, first_error, gather_objects
from pokevla.errors import CheckpointError, PokeVLAError

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


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
    engine.checkpoint_engine = writer  # pyright: ignore[reportAttributeAccessIssue]
    # Copies of scripts into every checkpoint: not wanted, and an error there would leave the other ranks waiting.
    engine._copy_recovery_script = lambda _folder: None  # pyright: ignore[reportAttributeAccessIssue]
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
