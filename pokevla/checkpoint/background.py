"""Saves that stop the loop only for a copy in memory; a thread of each rank brings them to the disk.

    snapshot in memory                                  the bytes of this rank's files, as torch.save puts them
    RUN/checkpoints/.tmp-step-00000100/state/*.pt       what the threads write, checksum and fsync

The checkpoint becomes one at a later step boundary, when every rank's thread is done and all ranks are there to agree.
A crash before that leaves the temporary folder, which counts for nothing: the checkpoint before is the newest.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pokevla.checkpoint.staging import Snapshot
from pokevla.checkpoint.store import begin, finish, temporary_folder, write_state
from pokevla.distributed.collectives import gather_objects
from pokevla.errors import PokeVLAError
from pokevla.files.checksums import HashingFile, StoredFile
from pokevla.runs.checkpoints import CheckpointInfo, save_error

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


class PendingCheckpoint:
    """A checkpoint that is on its way to the disk."""

    def __init__(
        self, run_dir: Path, info: CheckpointInfo, snapshot: Snapshot, error: PokeVLAError | None, *, is_main: bool
    ) -> None:
        """Start to write the snapshot, which must not change until `finish`. `error`: what went wrong in making it."""
        self.info = info
        self.written_s = 0.0
        """Seconds that the slowest rank took to write; known when it is finished."""
        self._run_dir, self._snapshot, self._is_main = run_dir, snapshot, is_main
        self._folder = temporary_folder(run_dir, info.step)
        self._error = error
        self._seconds = 0.0
        self._files: list[StoredFile] = []
        self._thread = threading.Thread(target=self._write, name="pokevla-checkpoint", daemon=True)
        self._thread.start()

    def is_written(self) -> bool:
        """Whether all ranks' threads have ended, well or not. Called by all ranks; does not wait for them."""
        return not any(gather_objects(self._thread.is_alive()))

    def finish(self) -> CheckpointInfo:
        """Wait for the threads of all ranks and commit. Called by all ranks; returns `info` with all files.

        Raises (on all ranks alike, with nothing left behind):
            DiskFullError, CheckpointError: a rank could not write.
        """
        self._thread.join()
        self.written_s = max(gather_objects(self._seconds))
        return finish(self._run_dir, self.info, self._files, self._error, is_main=self._is_main)

    def _write(self) -> None:
        if self._error is not None:
            return
        started = time.perf_counter()
        for name in self._snapshot.names:
            path = self._folder / name
            try:
                with path.open("wb") as file:
                    out = HashingFile(file)
                    for chunk in self._snapshot.read(name):
                        out.write(chunk)
                    out.sync()
            except OSError as error:
                self._error = save_error(error, path)
                return
            self._files.append(out.stored_file(name))
        self._seconds = time.perf_counter() - started


def save_in_background(
    engine: DeepSpeedEngine, run_dir: Path, info: CheckpointInfo, snapshot: Snapshot
) -> PendingCheckpoint:
    """Copy the engine's state into `snapshot` and start to write it. Called by all ranks. The memory of the snapshot is
    as large as this rank's files; it is allocated by the first save and used again by those that follow.

    Raises (on all ranks alike, with nothing left behind):
        DiskFullError, CheckpointError: the temporary folder cannot be made. Other failures: `finish` tells.
    """
    is_main = engine.global_rank == 0
    folder = begin(run_dir, info.step, is_main=is_main)
    snapshot.clear()
    writer = write_state(engine, folder, info, snapshot=snapshot)
    return PendingCheckpoint(run_dir, info, snapshot, writer.error, is_main=is_main)
