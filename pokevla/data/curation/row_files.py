"""Chunks of rows: what the files of a source are divided into, for several processes and for resuming."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pokevla.data.curation.json_lists import (
    BLOCK_BYTES,
    Damage,
    RowScanner,
    Span,
    file_head,
    refuse_archive,
    refuse_other_content,
)
from pokevla.data.curation.rules import Reject
from pokevla.errors import DataError
from pokevla.files.texts import open_regular, read_bytes

MAX_ROW_BYTES = 64 << 20
"""Largest row that is parsed. Text rows have kilobytes; a row with an image has less than a megabyte."""
CHUNK_ROWS = 256
CHUNK_BYTES = 16 << 20
_PARQUET_BUFFER = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """Some neighbouring rows of a file."""

    first: int
    """Number of the first row."""
    count: int
    begin: int
    """JSON: offset of the first byte. Parquet: number of the row group."""
    end: int
    """JSON: offset after the last byte. Parquet: rows of the row group before these."""
    digest: str
    """Of the bytes of JSON rows, or of size and time of other files: finished parts of other rows are not used."""


@dataclass(frozen=True)
class Survey:
    """What reading a file once has shown."""

    size_bytes: int
    time_ns: int
    num_rows: int
    chunks: tuple[Chunk, ...]
    xxh64: str | None
    """Of the whole file, if it was read."""
    damage: Damage | None = None
    """Where the rows end too early."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def survey_from_json(values: dict[str, Any]) -> Survey:
    """Inverse of `Survey.to_json`. Raises TypeError or KeyError for other values."""
    chunks = tuple(Chunk(**chunk) for chunk in values.pop("chunks"))
    damage = values.pop("damage")
    return Survey(**values, chunks=chunks, damage=Damage(**damage) if damage else None)


def survey_file(path: Path) -> Survey:
    """Divide a file, or a folder of JSON files, into chunks.

    Raises:
        DataError: it cannot be read, or is an archive.
    """
    if path.is_dir():
        return _survey_folder(path)
    return _survey_parquet(path) if path.suffix == ".parquet" else _survey_json(path)


def file_state(path: Path) -> tuple[int, int]:
    """Size and time of a file. Raises DataError if there is none."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).", "Check the path.") from error
    return status.st_size, status.st_mtime_ns


def _survey_json(path: Path) -> Survey:
    refuse_other_content(path)
    size, time_ns = file_state(path)
    try:
        with open_regular(path) as file:
            scanner = RowScanner(file)
            groups = list(_groups(iter(scanner)))
            whole, chunks, end, number = xxhash.xxh64(), [], 0, 0
            for begin, stop, count in groups:
                _feed(file, [whole], end, begin)
                part, end = xxhash.xxh3_64(), stop
                _feed(file, [whole, part], begin, stop)
                chunks.append(Chunk(number, count, begin, stop, part.hexdigest()))
                number += count
            _feed(file, [whole], end, size)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).", "Check the disk.") from error
    return Survey(size, time_ns, number, tuple(chunks), whole.hexdigest(), scanner.damage)


def _groups(spans: Iterator[Span]) -> Iterator[tuple[int, int, int]]:
    """(begin, end, rows) of neighbouring rows, at most `CHUNK_ROWS` and, unless it is one row, `CHUNK_BYTES`."""
    begin = end = count = 0
    for span in spans:
        if count and (count == CHUNK_ROWS or span.end - begin > CHUNK_BYTES):
            yield begin, end, count
            count = 0
        if not count:
            begin = span.begin
        end, count = span.end, count + 1
    if count:
        yield begin, end, count


def _feed(file: BinaryIO, digests: Sequence[Any], begin: int, end: int) -> None:
    file.seek(begin)
    while begin < end and (block := file.read(min(BLOCK_BYTES, end - begin))):
        for digest in digests:
            digest.update(block)
        begin += len(block)


def _survey_parquet(path: Path) -> Survey:
    size, time_ns = file_state(path)
    refuse_archive(path, file_head(path))
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a complete parquet file ({error}).", "Download it again.") from error
    chunks, number = [], 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        for before in range(0, rows, CHUNK_ROWS):
            count = min(CHUNK_ROWS, rows - before)
            chunks.append(Chunk(number, count, group, before, f"{size}-{time_ns}"))
            number += count
    return Survey(size, time_ns, number, tuple(chunks), None)


def _survey_folder(path: Path) -> Survey:
    names = _json_names(path)
    chunks = []
    for first in range(0, len(names), CHUNK_ROWS):
        digest = xxhash.xxh3_64()
        for name in names[first : first + CHUNK_ROWS]:
            digest.update(f"{name} {file_state(path / name)}".encode(errors="surrogateescape"))
        count = min(CHUNK_ROWS, len(names) - first)
        chunks.append(Chunk(first, count, first, first + count, digest.hexdigest()))
    return Survey(0, 0, len(names), tuple(chunks), None)


def _json_names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".json") and entry.is_file())
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}).", "Check its permissions.") from error


def read_rows(path: Path, chunk: Chunk) -> Iterator[tuple[int, dict[str, Any] | Reject]]:
    """The rows of one chunk (`RowReader.rows`)."""
    with RowReader() as reader:
        yield from reader.rows(path, chunk)


class RowReader:
    """Reads chunks of rows. It is fastest if those of a parquet file come in order: each goes on where the last ended,
    instead of decoding its row group from the beginning. Use it as a context manager."""

    def __init__(self) -> None:
        self._group: _RowGroup | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def rows(self, path: Path, chunk: Chunk) -> Iterator[tuple[int, dict[str, Any] | Reject]]:
        """(number, row) of each row of a chunk; instead of a row that is none, why.

        Raises:
            DataError: the file cannot be read any more, or has changed.
        """
        if path.is_dir():
            for number, name in enumerate(_json_names(path)[chunk.begin : chunk.end], start=chunk.first):
                yield number, _parsed(read_bytes(path / name, max_bytes=MAX_ROW_BYTES), name)
        elif path.suffix == ".parquet":
            yield from enumerate(self._parquet_rows(path, chunk), start=chunk.first)
        else:
            yield from _json_rows(path, chunk)

    def _parquet_rows(self, path: Path, chunk: Chunk) -> list[dict[str, Any]]:
        wanted = chunk.end // CHUNK_ROWS
        try:
            group = self._group
            if group is None or (group.path, group.number) != (path, chunk.begin) or group.next_batch > wanted:
                self._close()
                group = self._group = _RowGroup(path, chunk.begin)
            return group.batch(wanted).to_pylist()
        except (pa.ArrowException, OSError, StopIteration) as error:
            self._close()
            raise DataError(f"{path} cannot be read ({error}).", "Download it again.") from error

    def _close(self) -> None:
        if self._group is not None:
            self._group.close()
            self._group = None


class _RowGroup:
    """A row group while it is read."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number, self.next_batch = path, number, 0
        # By default, pyarrow holds whole columns of a row group: gigabytes of pictures.
        self._file = pq.ParquetFile(path, buffer_size=_PARQUET_BUFFER, pre_buffer=False)
        self._batches = self._file.iter_batches(batch_size=CHUNK_ROWS, row_groups=[number], use_threads=False)

    def batch(self, number: int) -> pa.RecordBatch:
        """A batch that has not been read yet. Raises StopIteration if there is none."""
        batch = next(islice(self._batches, number - self.next_batch, None))
        self.next_batch = number + 1
        return batch

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _json_rows(path: Path, chunk: Chunk) -> Iterator[tuple[int, dict[str, Any] | Reject]]:
    if chunk.end - chunk.begin > MAX_ROW_BYTES and chunk.count == 1:
        yield chunk.first, Reject("text_too_long", f"byte {chunk.begin}")
        return
    with open_regular(path) as file:
        file.seek(chunk.begin)
        content = file.read(chunk.end - chunk.begin)
    if xxhash.xxh3_64(content).hexdigest() != chunk.digest:
        raise DataError(f"{path} has changed during the conversion.", "Run the command again.")
    try:
        values = json.loads(f"[{content.decode()}]")
    except (ValueError, RecursionError):  # some row is bad: each by itself
        values = []
    if len(values) == chunk.count and all(isinstance(value, dict) for value in values):
        yield from enumerate(values, start=chunk.first)
        return
    spans = RowScanner(BytesIO(content), in_list=True)
    for number, span in enumerate(spans, start=chunk.first):
        yield number, _parsed(content[span.begin : span.end], f"byte {chunk.begin + span.begin}")


def _parsed(content: bytes, where: str) -> dict[str, Any] | Reject:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return Reject("text_not_utf8", f"{where}: {error.reason}")
    try:
        value = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        return Reject("row_not_json", f"{where}: {error}")
    return value if isinstance(value, dict) else Reject("row_layout", f"{where}: not an object")
