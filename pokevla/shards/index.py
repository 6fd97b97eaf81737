"""The sidecar of a shard: one line per tar member, so that a sample is one read at a known offset.

Format `.idx`: a header line, then tab-separated key, extension, offset of the payload in bytes, its size, and its xxh64
in hexadecimal. The members of a sample are adjacent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import xxhash

from pokevla.errors import DataError
from pokevla.files.texts import read_bytes, shorten

MAX_INDEX_BYTES = 1 << 30
"""Largest index that is read: ten million members."""
HEADER = "# pokevla shard index 1: key, extension, offset, size, xxh64"


@dataclass(frozen=True, slots=True)
class Member:
    """One payload inside a shard."""

    extension: str
    offset: int
    size: int
    checksum: int


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One sample of a shard, its members in the order of the file."""

    key: str
    members: tuple[Member, ...]


def index_path(shard: Path) -> Path:
    """Path of a shard's index: `x-00000.tar` has `x-00000.idx`."""
    return shard.with_suffix(".idx")


def dump_index(entries: list[IndexEntry]) -> str:
    """Text of an index."""
    lines = [HEADER]
    for entry in entries:
        lines += [f"{entry.key}\t{m.extension}\t{m.offset}\t{m.size}\t{m.checksum:016x}" for m in entry.members]
    return "\n".join(lines) + "\n"


def index_checksum(content: bytes) -> str:
    """xxh64 (hex) of an index, by which `dataset.json` or the manifest of a cache knows it."""
    return xxhash.xxh64_hexdigest(content)


def load_index(shard: Path, remedy: str, checksum: str | None = None) -> list[IndexEntry]:
    """Entries of a shard's index in file order.

    Raises:
        DataError: it is missing or damaged, or its `index_checksum` is not `checksum`; `remedy` says how to rebuild it.
    """
    path = index_path(shard)
    content = read_bytes(path, max_bytes=MAX_INDEX_BYTES, remedy=remedy)
    if checksum is not None and index_checksum(content) != checksum:
        raise DataError(f"{path} is damaged: its checksum differs.", remedy)
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is damaged: it is not text.", remedy) from error
    if not lines or lines[0] != HEADER:
        raise DataError(f"{path} is damaged: its first line is not an index header.", remedy)
    grouped: dict[str, list[Member]] = {}
    for number, line in enumerate(lines[1:], start=2):
        parts = line.split("\t")
        try:
            key, extension, offset, size, checksum = parts
            member = Member(extension, int(offset), int(size), int(checksum, 16))
        except ValueError as error:
            raise DataError(f"{path}:{number} is damaged: {shorten(repr(line))}.", remedy) from error
        if member.offset < 0 or member.size < 0:
            raise DataError(f"{path}:{number} is damaged: {shorten(repr(line))}.", remedy)
        grouped.setdefault(key, []).append(member)
    return [IndexEntry(key, tuple(members)) for key, members in grouped.items()]
