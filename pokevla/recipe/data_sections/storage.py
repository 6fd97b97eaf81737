"""Recipe section `data.storage`: object stores, slow file systems, copies on the node's disk."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pokevla.files.remote.settings import GIB, MIB, StorageSettings
from pokevla.recipe.paths import UserPath
from pokevla.recipe.running import NonNegative, Positive, Section


class StagingConfig(Section):
    """Copies of shards on a fast disk of each node, for datasets and caches on slow file systems or object stores."""

    folder: UserPath
    """Folder on a disk of the node. All processes of the node share it."""
    gib: Annotated[float, Field(gt=0.0)]
    """Most GiB that the copies take. Those used least recently make room; what does not fit is read from its place."""


class StorageConfig(Section):
    """How datasets and caches are read from storage that may be slow. Changes no result. All defaults are ours."""

    mib_in_flight: Positive = 256
    """MiB that each rank requests from object stores ahead of their arrival."""
    attempts: Positive = 6
    """How often a request to an object store is tried before the training stops: answers 429 and 5xx, time-outs and
    short answers are tried again, after a random pause that grows to 10 s."""
    timeout_s: Annotated[float, Field(gt=0.0)] = 120.0
    """Seconds that one request, or one read of a local file, may take. A file system that hangs ends the training with
    an error that names the file."""
    gap_kib: NonNegative = 256
    """Records of a shard that a batch needs and that lie at most this many KiB apart are one request."""
    staging: StagingConfig | None = None
    """Copies of shards on a disk of the node; `null`: none."""

    def settings(self) -> StorageSettings:
        """The same as plain arguments."""
        return StorageSettings(
            bytes_in_flight=self.mib_in_flight * MIB,
            attempts=self.attempts,
            timeout_s=self.timeout_s,
            gap_bytes=int(self.gap_kib * 1024),
            staging=None if self.staging is None else self.staging.folder,
            staging_bytes=0 if self.staging is None else int(self.staging.gib * GIB),
        )
