"""The files of a cache: `ROOT/<fingerprint>/` with `shards/*.tar`, `shards/*.idx`, `manifest.json` and `COMPLETE`.

Feature shards are ordinary tars with one member `<key>.pkvf` per sample. Their index files have the same format as
those of a dataset, but their offsets point at the payload of a record, past its header and padding.

Every file is either complete or absent. A shard exists once its `.idx` exists, which is written after the tar. A cache
exists once `COMPLETE` exists, which is written last.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pokevla.data.dataset import SHARDS_NAME
from pokevla.errors import CacheMismatchError, DataError
from pokevla.features.fingerprint import differences
from pokevla.features.layout import REBUILD, Features, RecordLayout, encode_record, payload_offset
from pokevla.files.checksums import with_checksum, without_checksum
from pokevla.files.labels import name_problem
from pokevla.files.remote.mirror import is_stored, local_folder
from pokevla.files.remote.urls import as_url, is_url
from pokevla.files.texts import read_bytes, read_json, write_json, write_text
from pokevla.files.writing import atomic_file
from pokevla.shards.index import (
    MAX_INDEX_BYTES,
    Checksum,
    ShardIndex,
    dump_index,
    index_checksum,
    index_path,
    load_index,
)
from pokevla.shards.shard_writer import PLAIN_HEADER, ShardWriter

SCHEMA_VERSION = 2
"""Version of the manifest. Version 1 supported SAM and VGGT only; it can be read but is no longer written."""
_READ_VERSIONS = (1, 2)
MANIFEST_NAME = "manifest.json"
COMPLETE_NAME = "COMPLETE"
EXTENSION = "pkvf"
CHECKSUM: Checksum = "xxh3_64"
"""Checksum of the payloads of new shards; the header of an index says which one its shard has."""
INDEX_CHECKSUMS = "index_xxh64"
"""Entry of the manifest with the checksum of each shard's index by shard. Caches from before it was stored lack it."""
_ENTRIES: dict[str, type] = {"fingerprint": str, "parts": dict, "num_samples": int, "shards": list}
"""What every manifest has, and its type."""


def write_shard(path: Path, samples: Iterable[tuple[str, Features]], layout: RecordLayout) -> None:
    """Write a feature shard and then its index. The shard does not count until the index has its final name.

    Raises:
        DiskFullError: the disk is full; neither file exists under its final name.
        DataError: a key is too long for a tar header, or `samples` raised it.
    """
    with atomic_file(path) as file:
        writer = ShardWriter(file, PLAIN_HEADER, CHECKSUM)
        for key, features in samples:
            start = writer.next_start
            writer.write_record(key, EXTENSION, encode_record(features, layout, start), payload_offset(start))
        writer.close()
    write_text(index_path(path), dump_index(writer.entries, CHECKSUM))


def read_index(shard: Path, checksum: str | None = None) -> ShardIndex:
    """Return the index of a shard, whose offsets point at the payloads of its records.

    Raises:
        DataError: the index is missing or damaged, or its checksum is not `checksum`.
    """
    return load_index(shard, REBUILD, checksum)


def refuse_missing_shards(directory: Path, manifest: dict[str, Any]) -> None:
    """Refuse a cache that lacks a shard or an index. Lists the folder once and opens no file. Does nothing for a URL.

    Raises:
        DataError: names the first one.
    """
    if is_url(directory):
        return  # listing a store takes a request for every thousand files; a missing one is named when it is read
    folder = directory / SHARDS_NAME
    try:
        present = {entry.name for entry in os.scandir(folder)}
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}).", REBUILD) from error
    for name in manifest["shards"]:
        for path in (folder / name, index_path(folder / name)):
            if path.name not in present:
                raise DataError(f"{path} is missing.", REBUILD)


def _read_manifest_file(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST_NAME
    manifest = read_json(path, remedy=REBUILD)
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version not in _READ_VERSIONS:
        known = " and ".join(map(str, _READ_VERSIONS))
        raise DataError(f"{path} has schema version {version}, this program reads {known}.", REBUILD)
    manifest = without_checksum(manifest, path, required=INDEX_CHECKSUMS in manifest, remedy=REBUILD)
    for name, kind in _ENTRIES.items():
        if not isinstance(manifest.get(name), kind):
            raise DataError(f"{path} is damaged: {name} is {manifest.get(name)!r:.60}.", REBUILD)
    for name in manifest["shards"]:
        problem = name_problem(name)
        if problem is not None:
            raise DataError(f"{path} names the shard {name!r}: {problem}.", REBUILD)
    return manifest


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a complete cache. `directory` may be a URL.

    Raises:
        DataError: not a cache, or the cache is incomplete, damaged, or of an unknown version.
    """
    if is_url(directory):
        if not is_stored(directory, COMPLETE_NAME):
            raise DataError(f"There is no complete feature cache at {directory}.", REBUILD)
        directory = local_folder(directory, MANIFEST_NAME, MANIFEST_NAME, COMPLETE_NAME)
    if not directory.is_dir():
        raise DataError(f"There is no feature cache at {directory}.", REBUILD)
    if not (directory / COMPLETE_NAME).is_file():
        finished = len(list((directory / SHARDS_NAME).glob("[!.]*.idx")))
        raise DataError(
            f"The feature cache {directory} is not complete ({finished} shards are).",
            "Continue with: pokevla cache build RECIPE",
        )
    return _read_manifest_file(directory)


def find_cache(root: Path, fingerprint: str, parts: dict[str, str] | None = None) -> Path:
    """Return the directory of the complete cache `fingerprint` under `root`, which may be a URL.

    Raises:
        CacheMismatchError: only caches with other parts exist. The message lists the differences to the nearest one.
        DataError: there is no cache, or it is incomplete.
    """
    directory = (as_url(root) if is_url(root) else root) / fingerprint
    if directory.is_dir() or is_url(root):
        stored = read_manifest(directory).get("fingerprint")
        if stored != fingerprint:
            raise CacheMismatchError(f"The cache {directory} has the fingerprint {stored}, not {fingerprint}.", REBUILD)
        return directory
    complete = [path for path in sorted(root.glob("*")) if (path / COMPLETE_NAME).is_file()]
    others: dict[Path, dict[str, Any]] = {}
    for path in complete:
        with suppress(DataError):  # a damaged cache cannot be the nearest one
            others[path] = _read_manifest_file(path)
    if not others:
        raise DataError(f"There is no feature cache {fingerprint} in {root}.", REBUILD)
    if parts is None:
        names = ", ".join(sorted(path.name for path in others))
        raise CacheMismatchError(f"{root} holds the caches {names}, this recipe needs {fingerprint}.", REBUILD)
    clauses = {path: differences(manifest["parts"], parts) for path, manifest in others.items()}
    nearest = min(clauses, key=lambda path: (len(clauses[path]), path.name))
    raise CacheMismatchError(
        f"No cache in {root} matches this recipe; the nearest, {nearest.name}, differs: {'; '.join(clauses[nearest])}.",
        REBUILD,
    )


def write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, then the marker of a complete cache."""
    shards = {name: index_path(directory / SHARDS_NAME / name) for name in manifest["shards"]}
    checksums = {name: index_checksum(read_bytes(path, max_bytes=MAX_INDEX_BYTES)) for name, path in shards.items()}
    content = {"schema_version": SCHEMA_VERSION, **manifest, INDEX_CHECKSUMS: checksums}
    write_json(directory / MANIFEST_NAME, with_checksum(content))
    write_text(directory / COMPLETE_NAME, f"{manifest['fingerprint']}\n")
