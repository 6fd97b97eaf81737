"""How a process reads datasets and caches: by which settings, from where, and what it has read slowly."""

from __future__ import annotations

from pathlib import Path

from pokevla.files.remote.mirror import Mirror
from pokevla.files.remote.settings import StorageSettings
from pokevla.files.remote.store import Store
from pokevla.files.remote.urls import as_url, is_url
from pokevla.shards.reading import ReadLog, ShardSource
from pokevla.shards.remote.source import RemoteSource
from pokevla.shards.remote.staging import StagedSource, Staging


class Storage:
    """What the readers of one job share in a process: requests, the disk for copies, and the log of reads."""

    def __init__(self, settings: StorageSettings | None = None) -> None:
        """Opens nothing."""
        self.settings = settings or StorageSettings()
        self.store = Store(self.settings)
        self.log = ReadLog()
        self._mirrors: dict[str, Mirror] = {}
        staging = self.settings.staging
        self.staging = None if staging is None else Staging(staging, self.settings.staging_bytes, self.store)

    def mirror(self, root: Path, head: str) -> Mirror:
        """Local copies of the small files of a dataset or cache by URL; the same object for the same URL."""
        url = as_url(root)
        return self._mirrors.setdefault(str(url), Mirror(url, head, self.store))

    def local_folder(self, root: Path, head: str, *names: str) -> Path:
        """A folder of this machine with the files `names` of a dataset or cache: `root` itself unless it is a URL.

        Raises:
            DataError: a file cannot be read. Names the URL.
        """
        if not is_url(root):
            return root
        mirror = self.mirror(root, head)
        for name in names:
            mirror.copy(name)
        return mirror.folder

    def source(self, root: Path, head: str, folder: str) -> ShardSource | None:
        """Where the shards in the sub-folder `folder` of a dataset or cache are read; None: they are plain files."""
        remote = None
        if is_url(root):
            remote = RemoteSource(self.mirror(root, head), folder, self.store, self.settings.gap_bytes)
        if self.staging is None:
            return remote
        return StagedSource(root / folder, self.staging, remote)
