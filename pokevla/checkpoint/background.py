"""Background saves: the loop waits only for a copy in memory; a thread of each rank writes it to disk.

    staging buffer in memory                            the bytes of this rank's files, as torch.save writes them
    RUN/checkpoints/.tmp-step-00000100/state/*.pt       what the threads write, checksum and fsync

The checkpoint is completed at a later step boundary, when the threads of all ranks are done and the ranks can agree. A
crash before that leaves only the temporary folder, and the previous checkpoint is the newest.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pokevla.checkpoint.staging import StagingBuffer
from pokevla.checkpoint.store import begin, finish, temporary_folder, write_state
from pokevla.distributed.collectives import gather_objects
from pokevla.errors import PokeVLAError
from pokevla.files.checksums import HashingFile, StoredFile
from pokevla.runs.checkpoints import CheckpointInfo, save_error

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


class PendingCheckpoint:
    """A checkpoint that is being written to disk."""

    def __init__(
        self, run_dir: Path, info: CheckpointInfo, buffer: StagingBuffer, error: PokeVLAError | None, *, is_main: bool
    ) -> None:
        """Start writing the buffer, which must not change until `finish`. `error`: from filling it, if any."""
        self.info = info
        self.written_s = 0.0
        """Seconds that the slowest rank took to write; valid after `finish`."""
        self._run_dir, self._buffer, self._is_main = run_dir, buffer, is_main
        self._folder = temporary_folder(run_dir, info.step)
        self._error = error
        self._seconds = 0.0
        self._files: list[StoredFile] = []
        self._thread = threading.Thread(target=self._write, name="pokevla-checkpoint", daemon=True)
        self._thread.start()

    def is_written(self) -> bool:
        """Whether the threads of all ranks have ended, with or without an error. Called by all ranks; does not wait."""
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
        for name in self._buffer.names:
            path = self._folder / name
            try:
                with path.open("wb") as file:
                    out = HashingFile(file)
                    for chunk in self._buffer.read(name):
                        out.write(chunk)
                    out.sync()
            except OSError as error:
                self._error = save_error(error, path)
                return
            self._files.append(out.stored_file(name))
        self._seconds = time.perf_counter() - started


def save_in_background(
    engine: DeepSpeedEngine, run_dir: Path, info: CheckpointInfo, buffer: StagingBuffer
) -> PendingCheckpoint:
    """Copy the engine's state into `buffer` and start writing it. Called by all ranks. The buffer is as large as this
    rank's files; the first save allocates it, later ones reuse it.

    Raises (on all ranks alike, with nothing left behind):
        DiskFullError, CheckpointError: the temporary folder cannot be created. `finish` raises other failures.
    """
    is_main = engine.global_rank == 0
    folder = begin(run_dir, info.step, is_main=is_main)
    buffer.clear()
    writer = write_state(engine, folder, info, buffer=buffer)
    return PendingCheckpoint(run_dir, info, buffer, writer.error, is_main=is_main)
