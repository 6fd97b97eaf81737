"""Saves that stop the loop only for a copy to a node-local disk; a thread brings them into the run.

    STAGE_DIR/pokevla-<run>/rank-00000/state/*.pt      this rank's files, without fsync: a step on the way
    RUN/checkpoints/.tmp-step-00000100/state/*.pt       what the threads copy, fsync and compare with the checksums

The checkpoint becomes one at a later step boundary, when every rank's thread is done and all ranks are there to agree.
A crash before that leaves the temporary folder, which counts for nothing: the checkpoint before is the newest.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pokevla.checkpoint.catalogue import STATE, CheckpointInfo
from pokevla.checkpoint.files import StoredFile, as_named_error, copy_durably
from pokevla.checkpoint.store import begin, finish, temporary_folder, write_state
from pokevla.distributed.collectives import first_error, gather_objects
from pokevla.errors import CheckpointError, PokeVLAError

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


class StagedCheckpoint:
    """A snapshot that is on its way into the run."""

    def __init__(self, run_dir: Path, info: CheckpointInfo, stage: Path, files: list[StoredFile], main: bool) -> None:
        """Start the copy. `files` are those below `stage`, with the checksums they were written with."""
        self.info = info
        self._run_dir, self._stage, self._is_main = run_dir, stage, main
        self._files = files
        self._target = temporary_folder(run_dir, info.step)
        self._error: PokeVLAError | None = None
        self._thread = threading.Thread(target=self._copy, name="pokevla-checkpoint", daemon=True)
        self._thread.start()

    def is_copied(self) -> bool:
        """Whether all ranks' copies have ended, well or not. Called by all ranks; does not wait for a copy."""
        return not any(gather_objects(self._thread.is_alive()))

    def finish(self) -> CheckpointInfo:
        """Wait for the copies of all ranks and commit. Called by all ranks; returns `info` with all files.

        Raises (on all ranks alike, with nothing left behind):
            DiskFullError, CheckpointError: a copy failed.
        """
        self._thread.join()
        shutil.rmtree(self._stage, ignore_errors=True)
        return finish(self._run_dir, self.info, self._files, self._error, is_main=self._is_main)

    def _copy(self) -> None:
        for file in self._files:
            try:
                copied = copy_durably(self._stage / file.name, self._target / file.name, file.name)
            except OSError as error:
                self._error = as_named_error(error, self._target / file.name)
                return
            if copied != file:
                self._error = CheckpointError(f"{self._stage / file.name} is damaged: its checksum differs.")
                return


def stage_checkpoint(engine: DeepSpeedEngine, run_dir: Path, info: CheckpointInfo, stage_dir: Path) -> StagedCheckpoint:
    """Write the engine's state to the node-local disk and start bringing it into the run. Called by all ranks.

    Raises (on all ranks alike, with nothing left behind):
        DiskFullError: no room on a node-local disk.
        CheckpointError: another failure to write there.
    """
    main = engine.global_rank == 0
    stage, target = stage_folder(stage_dir, run_dir, engine.global_rank), begin(run_dir, info.step, is_main=main)
    error: PokeVLAError | None = None
    files: list[StoredFile] = []
    try:
        shutil.rmtree(stage, ignore_errors=True)
        (stage / STATE).mkdir(parents=True)
    except OSError as cause:
        error = as_named_error(cause, stage)
    failure = first_error(error)
    if failure is None:
        writer = write_state(engine, stage, info, durable=False)
        files = writer.files
        failure = first_error(writer.error)
    if failure is not None:
        for folder in (stage, target):
            shutil.rmtree(folder, ignore_errors=True)
        raise failure[1]
    return StagedCheckpoint(run_dir, info, stage, files, main)


def stage_folder(stage_dir: Path, run_dir: Path, rank: int) -> Path:
    """This rank's folder for snapshots of a run. Runs and machines that share `stage_dir` do not meet."""
    key = hashlib.blake2b(f"{socket.gethostname()}:{run_dir.resolve()}".encode(), digest_size=8).hexdigest()
    return stage_dir / f"pokevla-{key}" / f"rank-{rank:05d}"


def remove_leftovers(stage_dir: Path, run_dir: Path, rank: int) -> None:
    """Delete what a killed job has left on this node for this rank."""
    shutil.rmtree(stage_folder(stage_dir, run_dir, rank), ignore_errors=True)
