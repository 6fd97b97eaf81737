"""Local copies of the small files below a URL: descriptions, tables, indices.

    CACHE/remote/NAME-HASH/VERSION/     one folder for each version of the file that describes the rest

The description (`dataset.json`, `manifest.json`) knows the checksums of the other files. So when it has another ETag,
all of them are copied anew into another folder; files in one folder belong together. Each is complete or absent.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from pokevla.errors import DataError
from pokevla.files.locks import advisory_lock
from pokevla.files.remote.failures import StoreError
from pokevla.files.remote.settings import QUICK
from pokevla.files.remote.store import Store
from pokevla.files.remote.urls import UrlPath, as_url, is_url
from pokevla.files.texts import MAX_BYTES
from pokevla.files.writing import atomic_file

_WAIT_S = 1800.0
"""How long to wait for another process that copies files of the same folder: tables may have gigabytes."""


def mirror_root() -> Path:
    """Folder of all copies: `$XDG_CACHE_HOME/pokevla/remote`. What lies there may be deleted while no job runs."""
    return platformdirs.user_cache_path("pokevla") / "remote"


class Mirror:
    """Copies of the small files of one dataset or cache. Thread-safe."""

    def __init__(self, url: UrlPath, head: str, store: Store) -> None:
        """`head`: name of the file that describes the rest. Connects to nothing."""
        self.url = url
        self._head, self._store = head, store
        self._lock = threading.Lock()
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the copies are. The first use asks the store for the version. Raises DataError."""
        with self._lock:
            if self._folder is None:
                try:
                    info = self._store.info(self.url / self._head)
                except StoreError as error:
                    raise unreadable(self.url / self._head, error) from None
                version = _hash(f"{self._head} {info.version} {info.size}")
                name = re.sub(r"[^A-Za-z0-9]+", "-", str(self.url))[-60:].strip("-")
                self._folder = mirror_root() / f"{name}-{_hash(str(self.url))}" / version
            return self._folder

    def copy(self, name: str, max_bytes: int | None = None) -> Path:
        """Local copy of a file by its name below the URL, which may have `max_bytes`.

        Raises:
            DataError: it is missing, cannot be read or is larger. Names the URL.
        """
        target = self.folder / name
        if target.is_file():
            return target
        url = self.url / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with advisory_lock(
            self.folder / ".lock",
            busy=f"{self.folder} is written by another process.",
            remedy="Wait until it ends.",
            kind=DataError,
            wait_s=_WAIT_S,
        ):
            if target.is_file():
                return target
            try:
                size = self._store.info(url).size
            except StoreError as error:
                raise unreadable(url, error) from None
            limit = MAX_BYTES if name == self._head else max_bytes
            if limit is not None and size > limit:
                raise DataError(f"{url} has {size} B: more than {limit} B are not read.", "Upload the dataset again.")
            with atomic_file(target) as file:
                for chunk in stored_chunks(self._store, url, size):
                    file.write(chunk)
        return target

    def has(self, name: str) -> bool:
        """Whether there is such a file, here or there. Raises DataError if nobody knows."""
        if (self.folder / name).is_file():
            return True
        try:
            self._store.info(self.url / name)
        except StoreError as error:
            if error.is_missing:
                return False
            raise unreadable(self.url / name, error) from None
        return True


def unreadable(url: UrlPath, error: StoreError) -> DataError:
    """The error that names what cannot be read."""
    return DataError(f"{url} cannot be read ({error.strerror}).", error.remedy)


def stored_chunks(store: Store, url: UrlPath, size: int) -> Iterator[bytes]:
    """The content of a file of `size` bytes in order. Raises DataError: a failed request is no failure to write."""
    try:
        yield from store.chunks(url, size)
    except StoreError as error:
        raise unreadable(url, error) from None


def local_folder(root: Path, head: str, *names: str) -> Path:
    """A folder on this machine with the files `names` of the dataset or cache at `root`: `root` itself unless it is a
    URL. For checks and tools: does not wait long for a store.

    Raises:
        DataError: a file cannot be read. Names the URL.
    """
    if not is_url(root):
        return root
    mirror = Mirror(as_url(root), head, Store(QUICK))
    for name in names:
        mirror.copy(name)
    return mirror.folder


def is_stored(root: Path, head: str) -> bool:
    """Whether there is a dataset or cache: a folder, or URL, with the file `head`.

    Raises:
        DataError: a store does not say.
    """
    if not is_url(root):
        return (root / head).is_file()
    try:
        Store(QUICK).info(as_url(root) / head)
    except StoreError as error:
        if error.is_missing:
            return False
        raise unreadable(as_url(root) / head, error) from None
    return True


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
