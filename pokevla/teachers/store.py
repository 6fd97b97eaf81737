"""The files of a cache: `ROOT/<fingerprint>/` with `shards/*.tar`, `shards/*.idx`, `manifest.json` and `COMPLETE`.

The sidecars have the form of a dataset's, but point at the payload of a record, past its header and padding.

Every file is written under a temporary name, flushed to disk and renamed. A shard is there when its `.idx` is, which
is renamed after the tar; a cache is there when `COMPLETE` is, which comes last of all.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pokevla.data.dataset import SHARDS_NAME
from pokevla.errors import NO_ROOM, CacheMismatchError, DataError, DiskFullError, UsageError
from pokevla.shards.index import IndexEntry, Member, dump_index, index_path, load_index
from pokevla.teachers.fingerprint import differences

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
COMPLETE_NAME = "COMPLETE"
LOCK_NAME = ".build.lock"
PARTIAL_SUFFIX = ".partial"
REBUILD = "Build it with: pokevla cache build RECIPE"


def write_index(shard: Path, entries: list[IndexEntry]) -> None:
    """Write the sidecar of a shard whose tar is already under its final name."""
    with atomic_file(index_path(shard)) as file:
        file.write(dump_index(entries).encode())


def read_index(shard: Path) -> dict[str, Member]:
    """Return where the payload of each record of a shard is, by key, in file order.

    Raises:
        DataError: missing or damaged.
    """
    return {entry.key: entry.members[0] for entry in load_index(shard, REBUILD)}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing.", REBUILD) from error
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}.", REBUILD) from error
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"{path} does not have schema version {SCHEMA_VERSION}.", REBUILD)
    return values


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a complete cache.

    Raises:
        DataError: not a cache, not complete, or damaged.
    """
    if not directory.is_dir():
        raise DataError(f"There is no feature cache at {directory}.", REBUILD)
    if not (directory / COMPLETE_NAME).is_file():
        finished = len(list((directory / SHARDS_NAME).glob("*.idx")))
        raise DataError(
            f"The feature cache {directory} is not complete ({finished} shards are).",
            "Go on with: pokevla cache build RECIPE",
        )
    return _read_json(directory / MANIFEST_NAME)


def find_cache(root: Path, fingerprint: str, parts: dict[str, str] | None = None) -> Path:
    """Return the directory of the complete cache `fingerprint` under `root`.

    Raises:
        CacheMismatchError: only caches with other parts are there; names what differs from the nearest one.
        DataError: there is no cache at all, or it is not complete.
    """
    directory = root / fingerprint
    if directory.is_dir():
        found = read_manifest(directory).get("fingerprint")
        if found != fingerprint:
            raise CacheMismatchError(f"The cache {directory} was made as {found}, not {fingerprint}.", REBUILD)
        return directory
    complete = [path for path in sorted(root.glob("*")) if (path / COMPLETE_NAME).is_file()]
    others = {path: _read_json(path / MANIFEST_NAME) for path in complete}
    if not others:
        raise DataError(f"There is no feature cache {fingerprint} in {root}.", REBUILD)
    if parts is None:
        names = ", ".join(sorted(path.name for path in others))
        raise CacheMismatchError(f"{root} holds the caches {names}, this recipe needs {fingerprint}.", REBUILD)
    clauses = {path: differences(manifest["parts"], parts) for path, manifest in others.items()}
    nearest = min(clauses, key=lambda path: (len(clauses[path]), path.name))
    raise CacheMismatchError(
        f"No cache in {root} fits this recipe; the nearest, {nearest.name}, differs: {'; '.join(clauses[nearest])}.",
        REBUILD,
    )


def write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, then the marker that says the cache is complete."""
    with atomic_file(directory / MANIFEST_NAME) as file:
        file.write(json.dumps({"schema_version": SCHEMA_VERSION, **manifest}, indent=2).encode())
    with atomic_file(directory / COMPLETE_NAME) as file:
        file.write(f"{manifest['fingerprint']}\n".encode())


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing under a temporary name; it appears, flushed to disk, when the body ends well.

    Raises:
        DiskFullError: no room left (or a quota or file-size limit). Nothing stays behind.
    """
    partial = path.with_name(f"{path.name}{PARTIAL_SUFFIX}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFullError(
                f"No room to write {path} ({os.strerror(error.errno or 0)}).", "Free some space, then run it again."
            ) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def build_lock(directory: Path) -> Iterator[None]:
    """Hold the right to write into a cache, and clear away what a killed build left under temporary names.

    Raises:
        UsageError: another process is building this cache.
    """
    (directory / SHARDS_NAME).mkdir(parents=True, exist_ok=True)
    with (directory / LOCK_NAME).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"Another process is building {directory}.", "Wait until it ends.") from error
        for partial in directory.rglob(f"*{PARTIAL_SUFFIX}"):
            partial.unlink()
        yield


@contextmanager
def shard_lock(directory: Path, shard: str) -> Iterator[None]:
    """Hold the right to write one shard of a cache, beside others that write other shards (the tasks of a job array).

    Raises:
        UsageError: another process builds the whole cache, or this shard.
    """
    (directory / SHARDS_NAME).mkdir(parents=True, exist_ok=True)
    with (directory / LOCK_NAME).open("a") as whole, (directory / _shard_lock_name(shard)).open("a") as own:
        try:
            fcntl.flock(whole, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"Another process is building {shard} of {directory}.", "Wait until it ends.") from error
        for final in (directory / SHARDS_NAME / shard, index_path(directory / SHARDS_NAME / shard)):
            final.with_name(f"{final.name}{PARTIAL_SUFFIX}").unlink(missing_ok=True)
        yield


@contextmanager
def finish_lock(directory: Path) -> Iterator[None]:
    """Hold the right to write manifest and marker; waits for whoever has it, which takes moments."""
    with (directory / _shard_lock_name("manifest")).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _shard_lock_name(shard: str) -> str:
    return f".build.{shard}.lock"
