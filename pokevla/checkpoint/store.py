"""Saves and loads the checkpoints of a run, complete or absent.

    RUN/checkpoints/step-00000100/COMPLETE.json     written last; without it the folder does not count
                                  state/*.pt         DeepSpeed's files

DeepSpeed writes directly to final names, without fsync, and marks the checkpoint as `latest` before the other ranks are
done; after a kill in between, rank 0 can load it and rank 1 cannot. Here all ranks write under a temporary name and
agree that all succeeded; then rank 0 writes COMPLETE.json and renames. docs/training.md (Cost of a save) has the cost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from pokevla.distributed.collectives import barrier, broadcast_object, first_error, gather_objects
from pokevla.errors import CheckpointError, PokeVLAError
from pokevla.files.checksums import StoredFile
from pokevla.files.names import fsync_folder, make_way, put_in_place, remove_folder
from pokevla.runs.checkpoints import (
    MARKER,
    STATE,
    CheckpointInfo,
    checkpoint_folder,
    foreign_in,
    save_error,
    temporary_folder,
    write_info,
)
from pokevla.runs.verification import OnDamage, latest_complete

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

    from pokevla.checkpoint.staging import StagingBuffer
    from pokevla.checkpoint.writer import RecordingWriter


def save_checkpoint(engine: DeepSpeedEngine, run_dir: Path, info: CheckpointInfo) -> CheckpointInfo:
    """Save the engine's state and wait until it is on disk. Called by all ranks; returns `info` with its files.

    Raises (on all ranks alike, with nothing left behind):
        DiskFullError: disk full.
        CheckpointError: writing failed otherwise.
    """
    temporary = begin(run_dir, info.step, is_main=engine.global_rank == 0)
    writer = write_state(engine, temporary, info)
    return finish(run_dir, info, writer.files, writer.error, is_main=engine.global_rank == 0)


def begin(run_dir: Path, step: int, *, is_main: bool) -> Path:
    """Create the empty temporary folder of a checkpoint. Called by all ranks; errors as in `save_checkpoint`."""
    temporary = temporary_folder(run_dir, step)
    _agree(_attempt(lambda: _make_empty(temporary), temporary) if is_main else None, temporary)
    return temporary


def write_state(
    engine: DeepSpeedEngine, root: Path, info: CheckpointInfo, buffer: StagingBuffer | None = None
) -> RecordingWriter:
    """Have DeepSpeed write its files to `root`/state, or into `buffer` under their later names below `root`.
    Called by all ranks. Does not raise: the returned writer holds this rank's files and its first error."""
    from pokevla.checkpoint.writer import RecordingWriter

    writer = RecordingWriter(root, buffer)
    engine.checkpoint_engine = writer  # pyright: ignore[reportAttributeAccessIssue]
    # Skip the script copies that DeepSpeed adds to checkpoints: an error there would leave the other ranks waiting.
    engine._copy_recovery_script = lambda _folder: None  # pyright: ignore[reportAttributeAccessIssue]
    engine.save_checkpoint(
        str(root),
        tag=STATE,
        client_state={"pokevla": {"step": info.step, "position": info.position}},
        save_latest=False,
        exclude_frozen_parameters=True,
    )
    return writer


def finish(
    run_dir: Path, info: CheckpointInfo, files: Sequence[StoredFile], error: PokeVLAError | None, *, is_main: bool
) -> CheckpointInfo:
    """Complete the checkpoint if all ranks have written their files. Called by all ranks, each with its own files and
    error; returns `info` with the files of all ranks. Errors as in `save_checkpoint`."""
    final, temporary = checkpoint_folder(run_dir, info.step), temporary_folder(run_dir, info.step)
    parts = gather_objects((error, list(files)))
    _raise_together(next((failure for failure, _ in parts if failure is not None), None), temporary)
    together = [file for _, part in parts for file in part]
    complete = replace(info, files=tuple(sorted(together, key=lambda file: file.name)))
    _agree(_attempt(lambda: _commit(temporary, final, complete), final) if is_main else None, temporary)
    return complete


def _attempt(action: Callable[[], None], path: Path) -> PokeVLAError | None:
    try:
        action()
    except OSError as error:
        return save_error(error, path)
    except PokeVLAError as error:
        return error
    return None


def _agree(error: PokeVLAError | None, temporary: Path) -> None:
    """Raise the first error on all ranks and delete the temporary folder, or continue on all ranks."""
    failure = first_error(error)
    _raise_together(failure[1] if failure is not None else None, temporary)


def _raise_together(failure: Exception | None, temporary: Path) -> None:
    if failure is None:
        return
    remove_folder(temporary, MARKER)
    barrier()
    raise failure


def _make_empty(folder: Path) -> None:
    remove_folder(folder, MARKER)
    (folder / STATE).mkdir(parents=True)


def _commit(temporary: Path, final: Path, info: CheckpointInfo) -> None:
    fsync_folder(temporary / STATE)
    write_info(temporary, info)
    # For one that is incomplete, damaged, or from steps that a resume has discarded.
    make_way(final, MARKER, keep=os.path.lexists(final) and foreign_in(final) is not None)
    put_in_place(temporary, final)


def load_checkpoint(engine: DeepSpeedEngine, folder: Path, info: CheckpointInfo) -> None:
    """Load weights, optimizer state and gradient bookkeeping. Called by all ranks, after `refuse_misfit`.

    A sharded state of another number of ranks is converted first. Stage 0 does not shard and needs no conversion.

    Raises (on all ranks alike):
        CheckpointError: a rank cannot load it.
        DiskFullError: no room for the conversion.
    """
    from pokevla.checkpoint.universal import convert_while_all_wait, load_converted, load_state

    elastic = info.zero_stage > 0 and info.world_size != engine.world_size
    if elastic:
        convert_while_all_wait(folder, info, is_main=engine.global_rank == 0)
    error: PokeVLAError | None = None
    try:
        if not (load_converted(engine, folder) if elastic else load_state(engine, folder, STATE)):
            error = CheckpointError(f"{folder} has no state that DeepSpeed can load.", "Use another checkpoint.")
    except (OSError, RuntimeError, LookupError, AssertionError, ValueError, EOFError, UnpicklingError) as cause:
        error = CheckpointError(f"{folder} cannot be loaded: {cause}", "Use another checkpoint.")
    failure = first_error(error)
    if failure is not None:
        raise failure[1]


def find_on_all_ranks(
    run_dir: Path, is_main: bool, on_damage: OnDamage, *, before: int | None = None
) -> tuple[Path, CheckpointInfo] | None:
    """`latest_complete` of rank 0, broadcast to all ranks so that all use the same checkpoint."""
    latest: tuple[Path, CheckpointInfo] | None = None
    error: PokeVLAError | None = None
    if is_main:
        try:
            latest = latest_complete(run_dir, on_damage, before=before)
        except CheckpointError as cause:
            error = cause
    failure = first_error(error)
    if failure is not None:
        raise failure[1]
    return broadcast_object(latest)
