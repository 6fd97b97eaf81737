"""The sidecar of a shard: one line per tar member, so that a sample is one read at a known offset.

Format `.idx`: a header line, then tab-separated key, extension, offset of the payload in bytes, its size, and its
checksum in hexadecimal. The header names the checksum: xxh64 in datasets, xxh3_64 in feature caches; caches from before
that have xxh64. The members of a sample are adjacent.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pyarrow import csv

from pokevla.errors import DataError
from pokevla.files.texts import read_bytes, shorten

MAX_INDEX_BYTES = 1 << 30
"""Largest index that is read: ten million members."""
Checksum = Literal["xxh64", "xxh3_64"]
CHECKSUMS: dict[Checksum, Callable[[], Any]] = {"xxh64": xxhash.xxh64, "xxh3_64": xxhash.xxh3_64}
"""Hash of a payload by its name in the header. xxh3 is twice as fast."""
_HEADERS: dict[str, Checksum] = {
    "# pokevla shard index 1: key, extension, offset, size, xxh64": "xxh64",
    "# pokevla shard index 2: key, extension, offset, size, xxh3_64": "xxh3_64",
}
HEADER = next(iter(_HEADERS))
"""First line of the index of a dataset's shard."""
_COLUMNS = ("key", "extension", "offset", "size", "checksum")


class Member(NamedTuple):
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


class ShardIndex(Sequence[IndexEntry]):
    """The samples of a shard in file order, kept as a few arrays."""

    def __init__(self, lines: _Lines, kind: Checksum, checksum: str) -> None:
        self.kind: Checksum = kind
        """Name of the checksum of the members."""
        self.checksum = checksum
        """`index_checksum` of the file."""
        keys = lines.keys
        is_first = np.ones(len(keys), dtype=bool)
        if len(keys) > 1:
            is_first[1:] = np.asarray(pc.call_function("not_equal", [keys[1:], keys[:-1]]))
        self._first = np.append(np.flatnonzero(is_first), len(keys)).data
        self._keys = keys.filter(pa.array(is_first))
        extensions = lines.extensions.dictionary_encode()
        self._extensions: list[str] = extensions.dictionary.to_pylist()
        self._codes = extensions.indices.to_numpy().data
        # Views give Python's integers, five times faster than numpy does.
        self._offsets, self._sizes, self._checksums = lines.offsets.data, lines.sizes.data, lines.checksums.data

    def __len__(self) -> int:
        return len(self._first) - 1

    @overload
    def __getitem__(self, number: int) -> IndexEntry: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[IndexEntry]: ...
    def __getitem__(self, number: int | slice) -> IndexEntry | Sequence[IndexEntry]:
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        place = number % len(self)
        members = range(self._first[place], self._first[place + 1])
        return IndexEntry(self.key(place), tuple(self._member(member) for member in members))

    def __iter__(self) -> Iterator[IndexEntry]:
        return (self[number] for number in range(len(self)))

    def _member(self, number: int) -> Member:
        extension = self._extensions[self._codes[number]]
        return Member(extension, self._offsets[number], self._sizes[number], self._checksums[number])

    def key(self, number: int) -> str:
        """Key of a sample."""
        return cast(str, self._keys[number].as_py())

    def keys(self) -> list[str]:
        """Keys of all samples."""
        return cast(list[str], self._keys.to_pylist())

    def first_member(self, number: int) -> tuple[int, int, int]:
        """(offset, size, checksum) of a sample's first member, which in a feature cache is its only one."""
        member = self._first[number]
        return self._offsets[member], self._sizes[member], self._checksums[member]

    def checksums_of(self, extension: str) -> tuple[np.ndarray, np.ndarray]:
        """(n,) int64 numbers of the samples with a member of this extension, and (n,) uint64 its checksums."""
        code = self._extensions.index(extension) if extension in self._extensions else -1
        members = np.flatnonzero(np.asarray(self._codes) == code)
        samples = np.searchsorted(np.asarray(self._first), members, side="right") - 1
        return samples, np.asarray(self._checksums)[members]

    def has_keys(self, keys: Any) -> bool:
        """Whether the samples have these keys (an Arrow array) in this order."""
        return bool(self._keys.equals(keys.cast(pa.string())))

    def find(self, key: str) -> int:
        """Number of the sample with this key, -1 if there is none. Looks through all of them."""
        return int(self._keys.index(key).as_py())


@dataclass(frozen=True)
class _Lines:
    """The lines of an index as columns: keys and extensions as Arrow strings, the others as numpy arrays."""

    keys: Any
    extensions: Any
    offsets: np.ndarray  # int64
    sizes: np.ndarray  # int64
    checksums: np.ndarray  # uint64


def index_path(shard: Path) -> Path:
    """Path of a shard's index: `x-00000.tar` has `x-00000.idx`."""
    return shard.with_suffix(".idx")


def dump_index(entries: Sequence[IndexEntry], kind: Checksum = "xxh64") -> str:
    """Text of an index whose members have checksums of this kind."""
    lines = [next(header for header, name in _HEADERS.items() if name == kind)]
    for entry in entries:
        lines += [f"{entry.key}\t{m.extension}\t{m.offset}\t{m.size}\t{m.checksum:016x}" for m in entry.members]
    return "\n".join(lines) + "\n"


def index_checksum(content: bytes) -> str:
    """xxh64 (hex) of an index, by which `dataset.json` or the manifest of a cache knows it."""
    return xxhash.xxh64_hexdigest(content)


def load_index(shard: Path, remedy: str, checksum: str | None = None) -> ShardIndex:
    """A shard's index.

    Raises:
        DataError: it is missing or damaged, or its `index_checksum` is not `checksum`; `remedy` says how to rebuild it.
    """
    path = index_path(shard)
    content = read_bytes(path, max_bytes=MAX_INDEX_BYTES, remedy=remedy)
    own_checksum = index_checksum(content)
    if checksum is not None and own_checksum != checksum:
        raise DataError(f"{path} is damaged: its checksum differs.", remedy)
    header, _, body = content.partition(b"\n")
    try:
        kind = _HEADERS.get(header.decode("utf-8").strip())
        lines = None if kind is None else _parsed(body)
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is damaged: it is not text.", remedy) from error
    if kind is None:
        raise DataError(f"{path} is damaged: its first line is not an index header.", remedy)
    return ShardIndex(lines if lines is not None else _parsed_line_by_line(body, path, remedy), kind, own_checksum)


def _parsed(body: bytes) -> _Lines | None:
    """The lines, or None if one of them is not as `dump_index` writes it."""
    if not body:
        return _Lines(pa.array([], pa.string()), pa.array([], pa.string()), *_numbers([], [], []))
    types = {"key": pa.string(), "extension": pa.string(), "offset": pa.int64(), "size": pa.int64()}
    try:
        table = csv.read_csv(
            io.BytesIO(body),
            csv.ReadOptions(use_threads=False, column_names=_COLUMNS),
            csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(column_types=types | {"checksum": pa.string()}),
        ).combine_chunks()
        columns = [table[name].chunk(0) for name in _COLUMNS]
        digits = b"".join(columns[4].to_numpy(zero_copy_only=False).astype("S16").tolist())
        checksums = np.frombuffer(bytes.fromhex(digits.decode()), dtype=">u8")
    except (pa.ArrowException, ValueError, IndexError):
        return None
    offsets, sizes = columns[2], columns[3]
    if offsets.null_count or sizes.null_count or len(checksums) != len(table):
        return None
    lines = _Lines(columns[0], columns[1], *_numbers(offsets.to_numpy(), sizes.to_numpy(), checksums))
    return lines if (lines.offsets >= 0).all() and (lines.sizes >= 0).all() else None


def _parsed_line_by_line(body: bytes, path: Path, remedy: str) -> _Lines:
    """The lines of an index that another program wrote, or the error that names the line."""
    rows: list[tuple[str, str, int, int, int]] = []
    for number, line in enumerate(body.decode("utf-8").splitlines(), start=2):
        try:
            key, extension, offset, size, checksum = line.split("\t")
            row = (key, extension, int(offset), int(size), int(checksum, 16))
            _numbers([row[2]], [row[3]], [row[4]])  # raises for numbers of more than 64 bits
        except (ValueError, OverflowError) as error:
            raise DataError(f"{path}:{number} is damaged: {shorten(repr(line))}.", remedy) from error
        if row[2] < 0 or row[3] < 0:
            raise DataError(f"{path}:{number} is damaged: {shorten(repr(line))}.", remedy)
        rows.append(row)
    keys, extensions, *numbers = zip(*rows, strict=True) if rows else ((),) * 5
    texts = [pa.array(column, pa.string()) for column in (keys, extensions)]
    return _Lines(texts[0], texts[1], *_numbers(*numbers))


def _numbers(offsets: Any, sizes: Any, checksums: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.asarray(offsets, np.int64), np.asarray(sizes, np.int64), np.asarray(checksums, np.uint64)
