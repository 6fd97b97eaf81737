"""Replacement of DeepSpeed's file writer that syncs files and does not raise in the middle of a collective."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, cast

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine

from pokevla.checkpoint.staging import StagingBuffer
from pokevla.errors import PokeVLAError
from pokevla.files.checksums import HashingFile, StoredFile
from pokevla.runs.checkpoints import save_error


class RecordingWriter(CheckpointEngine):
    """Writes and checksums this rank's files below `root`, and keeps the first error instead of raising it.

    An exception on one rank in the middle of `engine.save_checkpoint` would leave the others waiting in a barrier. The
    caller checks `error` on all ranks afterwards.
    """

    def __init__(self, root: Path, buffer: StagingBuffer | None = None) -> None:
        """With `buffer`, files are written to it under their names below `root`; the caller writes them to disk."""
        super().__init__()
        self.name = "PokeVLARecordingWriter"
        self.root = root
        self.buffer = buffer
        self.files: list[StoredFile] = []
        self.error: PokeVLAError | None = None

    def create(self, info: CheckpointCommitInfo) -> None:
        """Nothing to prepare."""

    def save(self, state_dict: Any, path: str) -> None:
        """Write one file, unless an earlier one has failed."""
        if self.error is not None:
            return
        name = str(Path(path).relative_to(self.root))
        try:
            if self.buffer is not None:
                _save_to_memory(state_dict, self.buffer, name)
                return
            with open(path, "wb") as file:
                out = HashingFile(file)
                torch.save(state_dict, cast(IO[bytes], out))  # calls only write and flush
                out.sync()
            self.files.append(out.stored_file(name))
        except (OSError, RuntimeError, MemoryError) as error:
            self.error = save_error(error, Path(path))

    def load(self, path: str, map_location: Any = None) -> Any:
        """Load a file. It is one of our own, and its checksum has been verified."""
        return torch.load(path, map_location=map_location, weights_only=False)

    def commit(self, info: CheckpointCommitInfo) -> bool:
        """Do nothing: the store completes the checkpoint."""
        return True


def _save_to_memory(state_dict: Any, buffer: StagingBuffer, name: str) -> None:
    """`torch.save` without the checksums of the zip format, which take three times as long as the copy. `torch.load`
    does not check them, and the file gets an xxh64 when it is written to disk."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        buffer.begin(name)
        torch.save(state_dict, cast(IO[bytes], buffer))
        buffer.end()
    finally:
        torch.serialization.set_crc32_options(before)
