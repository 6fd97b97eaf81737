"""DeepSpeed's file writer, replaced by one that is durable and never leaves a collective by an exception."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, cast

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine

from pokevla.checkpoint.staging import Snapshot
from pokevla.errors import PokeVLAError
from pokevla.files.checksums import HashingFile, StoredFile
from pokevla.runs.checkpoints import save_error


class RecordingWriter(CheckpointEngine):
    """Writes and checksums this rank's files below `root`; keeps the first error instead of raising it.

    An exception on one rank in the middle of `engine.save_checkpoint` would leave the others waiting in a barrier.
    The caller looks at `error` on all ranks afterwards.
    """

    def __init__(self, root: Path, snapshot: Snapshot | None = None) -> None:
        """With `snapshot` files go there, under their names below `root`; the disk is somebody else's business."""
        super().__init__()
        self.name = "PokeVLARecordingWriter"
        self.root = root
        self.snapshot = snapshot
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
            if self.snapshot is not None:
                _save_to_memory(state_dict, self.snapshot, name)
                return
            with open(path, "wb") as file:
                out = HashingFile(file)
                torch.save(state_dict, cast(IO[bytes], out))  # it writes and flushes, no more
                out.sync()
            self.files.append(out.stored_file(name))
        except (OSError, RuntimeError, MemoryError) as error:
            self.error = save_error(error, Path(path))

    def load(self, path: str, map_location: Any = None) -> Any:
        """Read a file back. Our own files: their checksums were verified."""
        return torch.load(path, map_location=map_location, weights_only=False)

    def commit(self, info: CheckpointCommitInfo) -> bool:
        """Nothing to do: the store commits."""
        return True


def _save_to_memory(state_dict: Any, snapshot: Snapshot, name: str) -> None:
    """`torch.save` without the zip format's own checksums: they take three times as long as the copy, and the file gets
    a better one (xxh64) on its way to the disk. `torch.load` does not look at them."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        snapshot.begin(name)
        torch.save(state_dict, cast(IO[bytes], snapshot))
        snapshot.end()
    finally:
        torch.serialization.set_crc32_options(before)
