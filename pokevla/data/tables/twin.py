"""The file of a mapped table: Arrow IPC, uncompressed, with a checksum of every column of every batch.

A parquet table has to be decompressed into memory by each process. Its twin is mapped: processes of a node share it,
and opening it reads nothing but its last pages. A column is checked when a batch is first read from, so that a damaged
file is noticed before a value of it is used.

The schema's metadata hold a JSON document under `pokevla`: version, what the twin was made from, further values; and
arrays under their names. `xxh3` is the checksum of all of these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pokevla.errors import DataError, command_line
from pokevla.files.writing import atomic_file

VERSION = 1
_DOCUMENT, _CHECKSUM, _COLUMNS = b"pokevla", b"xxh3", b"xxh3"


@dataclass(frozen=True)
class Header:
    """What a twin says about itself."""

    made_from: dict[str, str]
    """xxh64 of each table that it was made from, by file name."""
    num_rows: int
    batch_rows: int
    """Rows of every batch but the last, which may be shorter."""
    values: dict[str, Any]
    arrays: dict[str, np.ndarray]
    """int64 arrays by name."""


def write_twin(path: Path, header: Header, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a twin, complete or not at all. `batches` have `header.batch_rows` rows, the last one may have fewer.

    Raises:
        DiskFullError: the disk is full.
    """
    document = {
        "version": VERSION,
        "made_from": header.made_from,
        "num_rows": header.num_rows,
        "batch_rows": header.batch_rows,
        "values": header.values,
    }
    metadata = {_DOCUMENT: json.dumps(document, sort_keys=True).encode()}
    metadata |= {name.encode(): array.astype("<i8").tobytes() for name, array in header.arrays.items()}
    metadata[_CHECKSUM] = _header_checksum(schema, metadata)
    with (
        atomic_file(path) as file,
        pa.ipc.new_file(pa.PythonFile(file, "w"), schema.with_metadata(metadata)) as writer,
    ):
        for batch in batches:
            stored = pa.ipc.read_record_batch(batch.serialize(), batch.schema)  # its buffers are those of the file
            sums = b" ".join(_checksum(_parts(column)).encode() for column in stored.columns)
            writer.write_batch(batch, custom_metadata={_COLUMNS: sums})
            del batch, stored  # before the next one is made


class MappedBatches:
    """The batches of a mapped file, each opened when it is first needed. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Raises DataError if the file is missing or damaged, or of another version."""
        self._path = path
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)), options=pa.ipc.IpcReadOptions(use_threads=False))
            self.header = _header(self._reader.schema)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"it cannot be read ({error})") from error
        self.names: list[str] = self._reader.schema.names
        expected = -(-self.header.num_rows // self.header.batch_rows)
        if self._reader.num_record_batches != expected:
            raise self._damaged(f"it has {self._reader.num_record_batches} batches instead of {expected}")
        self._batches: list[tuple[pa.RecordBatch, list[bytes]] | None] = [None] * expected
        self._checked = np.zeros((expected, len(self.names)), dtype=bool)

    def __len__(self) -> int:
        return len(self._batches)

    def column(self, number: int, name: str) -> pa.Array:
        """One column of batch `number`. Raises DataError if it is damaged."""
        opened = self._batches[number]
        if opened is None:
            opened = self._batches[number] = self._open(number)
        batch, sums = opened
        index = self.names.index(name)
        column = batch.column(index)
        if not self._checked[number, index]:
            if _checksum(_parts(column)).encode() != sums[index]:
                raise self._damaged(f"the checksum of column {name}, batch {number}, differs")
            self._checked[number, index] = True
        return column

    def check(self) -> None:
        """Compare every column with its checksum. Raises DataError if one differs."""
        for number in range(len(self)):
            for name in self.names:
                self.column(number, name)

    def _open(self, number: int) -> tuple[pa.RecordBatch, list[bytes]]:
        try:
            batch, metadata = self._reader.get_batch_with_custom_metadata(number)
            sums = (metadata or {})[_COLUMNS].split(b" ")
        except (pa.ArrowException, OSError, KeyError) as error:
            raise self._damaged(f"batch {number} cannot be read ({error})") from error
        rows = min(self.header.batch_rows, self.header.num_rows - number * self.header.batch_rows)
        if batch.num_rows != rows or len(sums) != len(self.names):
            raise self._damaged(f"batch {number} has {batch.num_rows} rows instead of {rows}")
        return batch, sums

    def _damaged(self, problem: str) -> DataError:
        remedy = f"Make it again with: {command_line('data', 'index', self._path.parent)}"
        return DataError(f"{self._path} is damaged: {problem}.", remedy)


class TableBatches:
    """A table in memory with the interface of `MappedBatches`, for datasets without a twin."""

    def __init__(self, table: pa.Table, header: Header) -> None:
        self.header, self.names = header, table.column_names
        self._batches = table.combine_chunks().to_batches(max_chunksize=header.batch_rows)

    def __len__(self) -> int:
        return len(self._batches)

    def column(self, number: int, name: str) -> pa.Array:
        """One column of batch `number`."""
        return self._batches[number].column(self.names.index(name))


Batches = MappedBatches | TableBatches


def _header_checksum(schema: pa.Schema, metadata: Mapping[bytes, bytes]) -> bytes:
    columns = [f"{field.name} {field.type} {field.nullable}".encode() for field in schema]
    values = [part for name in sorted(metadata) for part in (name, metadata[name])]
    return _checksum([*columns, *values]).encode()


def _header(schema: pa.Schema) -> Header:
    metadata = schema.metadata or {}
    content = {name: value for name, value in metadata.items() if name != _CHECKSUM}
    if metadata[_CHECKSUM] != _header_checksum(schema, content):
        raise ValueError("the checksum of its header differs")
    document = json.loads(content.pop(_DOCUMENT))
    if document["version"] != VERSION:
        raise ValueError(f"it has version {document['version']}, this code reads {VERSION}")
    arrays = {name.decode(): np.frombuffer(value, dtype="<i8") for name, value in content.items()}
    return Header(document["made_from"], document["num_rows"], document["batch_rows"], document["values"], arrays)


def _parts(array: pa.Array) -> Iterator[pa.Buffer | bytes]:
    """The buffers of a column, and what the file says about them."""
    inner: Any = array
    while inner is not None:
        yield f"{inner.type} {len(inner)} {inner.null_count} {inner.offset}".encode()
        inner = inner.values if isinstance(inner, pa.LargeListArray) else None
    for buffer in array.buffers():
        yield b"none" if buffer is None else str(buffer.size).encode()
        if buffer is not None:
            yield buffer


def _checksum(parts: Iterable[Any]) -> str:
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
