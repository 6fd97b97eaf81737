"""Writing feature shards: ordinary tars with one member `<key>.pkvf` per sample, and their sidecars."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pokevla.data.batch import FeatureArrays
from pokevla.shards.writer import PLAIN_HEADER, ShardWriter
from pokevla.teachers.codec import RecordLayout, encode_record, payload_offset
from pokevla.teachers.store import atomic_file, write_index

EXTENSION = "pkvf"


def write_shard(path: Path, samples: Iterable[tuple[str, FeatureArrays]], layout: RecordLayout) -> None:
    """Write a feature shard and then its sidecar. Until the sidecar has its name, the shard does not count.

    Raises:
        DiskFullError: no room; neither file exists under its final name.
        DataError: a key too long for a tar header, or whatever `samples` raises.
    """
    with atomic_file(path) as file:
        writer = ShardWriter(file, PLAIN_HEADER)
        for key, features in samples:
            start = writer.next_start
            writer.write_record(key, EXTENSION, encode_record(features, layout, start), payload_offset(start))
        writer.close()
    write_index(path, writer.entries)
