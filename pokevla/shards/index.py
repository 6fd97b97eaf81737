"""The sidecar of a shard: one line per tar member, so that a sample is one read at a known offset.

Format `.idx`: a header line, then tab-separated key, extension, offset of the payload in bytes, its size, and its xxh64
in hexadecimal. The members of a sample are adjacent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pokevla.errors import DataError

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


def load_index(shard: Path, remedy: str) -> list[IndexEntry]:
    """Entries of a shard's index in file order.

    Raises:
        DataError: it is missing or damaged; `remedy` says how to rebuild it.
    """
    path = index_path(shard)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing.", remedy) from error
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
            raise DataError(f"{path}:{number} is damaged: {line!r}.", remedy) from error
        if member.offset < 0 or member.size < 0:
            raise DataError(f"{path}:{number} is damaged: {line!r}.", remedy)
        grouped.setdefault(key, []).append(member)
    return [IndexEntry(key, tuple(members)) for key, members in grouped.items()]
