"""Shards of three samples, written by the one writer."""

from __future__ import annotations

from pathlib import Path

from pokevla.shards.index import dump_index, index_path
from pokevla.shards.shard_writer import WEBDATASET_HEADER, ShardWriter

KEYS = ["a-0000", "a-0001", "a-0002"]


def members_of(number: int, shift: int = 0) -> dict[str, bytes]:
    """Members of sample `number`; the picture of sample 0 is empty. `shift`: another content of the same size."""
    return {"jpg": bytes([number + shift]) * (700 * number), "json": b'{"n":%d}' % number}


def make_shard(folder: Path, name: str = "a-00000.tar", shift: int = 0) -> Path:
    """Write a shard and its index."""
    path = folder / name
    with path.open("xb") as file:
        writer = ShardWriter(file, WEBDATASET_HEADER)
        for number, key in enumerate(KEYS):
            writer.write(key, members_of(number, shift))
        writer.close()
    index_path(path).write_text(dump_index(writer.entries))
    return path
