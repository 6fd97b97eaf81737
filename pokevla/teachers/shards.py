"""Writing feature shards: ordinary tars with one member `<key>.pkvf` per sample, and their sidecars."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import xxhash

from pokevla.data.batch import FeatureArrays
from pokevla.errors import DataError
from pokevla.shards.index import IndexEntry, Member
from pokevla.teachers.codec import RecordLayout, encode_record, payload_offset
from pokevla.teachers.store import atomic_file, write_index

EXTENSION = "pkvf"


def write_shard(path: Path, samples: Iterable[tuple[str, FeatureArrays]], layout: RecordLayout) -> None:
    """Write a feature shard and then its sidecar. Until the sidecar has its name, the shard does not count.

    Raises:
        DiskFullError: no room; neither file exists under its final name.
        DataError: a key too long for a tar header, or whatever `samples` raises.
    """
    entries: list[IndexEntry] = []
    with atomic_file(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, features in samples:
            start = file.tell() + tarfile.BLOCKSIZE  # where the member's bytes begin, after its tar header
            record = encode_record(features, layout, start)
            offset = payload_offset(start)
            info = tarfile.TarInfo(f"{key}.{EXTENSION}")
            info.size = len(record)
            try:
                tar.addfile(info, io.BytesIO(record))
            except ValueError as error:
                raise DataError(f"{path}: key {key} is no name for a tar member ({error}).") from error
            checksum = xxhash.xxh64_intdigest(memoryview(record)[offset:])
            entries.append(IndexEntry(key, (Member(EXTENSION, start + offset, layout.payload_bytes, checksum),)))
    write_index(path, entries)
