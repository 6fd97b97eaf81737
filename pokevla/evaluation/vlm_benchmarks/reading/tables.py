"""Rows of published files (parquet, JSON lines, JSON lists), and the pictures in them, read within bounds."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from pokevla.errors import DataError
from pokevla.files.labels import lies_within
from pokevla.files.texts import parse_json, read_bytes, read_json, read_text, shorten

MAX_PIXELS = 64_000_000
"""Largest picture that is decoded. Those of the benchmarks have less than one million."""
BATCH_ROWS = 8
"""Rows of a parquet file, with their pictures, that are in memory at once."""
GET_AGAIN = "Download the file again."


def jsonl_rows(path: Path) -> list[dict[str, Any]]:
    """Objects of a file of JSON lines of at most 64 MiB; empty lines are left out.

    Raises:
        DataError: names the line that is no object.
    """
    rows = []
    for number, line in enumerate(read_text(path, remedy=GET_AGAIN).split("\n"), start=1):
        if line.strip():
            rows.append(_object(parse_json(line, f"{path}:{number}", non_finite=True, remedy=GET_AGAIN), path, number))
    return _some(rows, path)


def json_rows(path: Path) -> list[dict[str, Any]]:
    """Objects of a file that is one JSON list, of at most 64 MiB. Raises DataError as `jsonl_rows`."""
    content = read_json(path, non_finite=True, remedy=GET_AGAIN)
    if not isinstance(content, list):
        raise DataError(f"{path} holds no list of questions.", GET_AGAIN)
    return _some([_object(row, path, number) for number, row in enumerate(content, start=1)], path)


def _object(row: Any, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{path}: entry {number} is not an object with a question.", GET_AGAIN)
    return row


def _some(rows: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    if not rows:
        raise DataError(f"{path} holds no question.", GET_AGAIN)
    return rows


class ParquetRows:
    """Rows of one or more parquet files, numbered through. Memory: `BATCH_ROWS` rows."""

    def __init__(self, paths: Sequence[Path], columns: Sequence[str]) -> None:
        """Raises DataError if a file is unreadable or lacks one of `columns`."""
        self._paths, self._counts = list(paths), []
        for path in self._paths:
            schema, count = self._checked(path)
            if missing := [name for name in columns if name not in schema.names]:
                raise DataError(f"{path} has no column {missing[0]!r}: it is another dataset.", "Check the path.")
            self._counts.append(count)
        if not len(self):
            raise DataError(f"{self._paths[0]} holds no question.", GET_AGAIN)

    def __len__(self) -> int:
        return sum(self._counts)

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(where, row) of these numbers, which ascend. `where` is file and row, for messages."""
        wanted, first = set(numbers), 0
        for path, count in zip(self._paths, self._counts, strict=True):
            if any(first <= number < first + count for number in wanted):
                for row, content in enumerate(self._rows(path)):
                    if first + row in wanted:
                        yield f"{path}: row {row}", {name: value.as_py() for name, value in content.items()}
            first += count

    @staticmethod
    def _checked(path: Path) -> tuple[pa.Schema, int]:
        try:
            with pq.ParquetFile(path) as file:
                return file.schema_arrow, file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a readable parquet file ({_first_line(error)}).", GET_AGAIN) from error

    @staticmethod
    def _rows(path: Path) -> Iterator[dict[str, pa.Scalar]]:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=BATCH_ROWS):
                    for row in range(batch.num_rows):
                        yield {name: batch.column(name)[row] for name in batch.schema.names}
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is damaged ({_first_line(error)}).", GET_AGAIN) from error


def _first_line(error: Exception) -> str:
    return shorten(str(error).split("\n", 1)[0], 120)


def text_in(row: Mapping[str, Any], key: str, where: str) -> str:
    """A text of a row. DataError if it is missing or empty."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: the field {key!r} holds no text.", GET_AGAIN)
    return value


def file_in(folder: Path, row: Mapping[str, Any], key: str, where: str) -> Path:
    """The file below `folder` that a row names. DataError if the name leads out of the folder."""
    name = PurePosixPath(text_in(row, key, where)).as_posix()
    if not lies_within(name):
        raise DataError(f"{where}: the field {key!r} leads out of the data ({shorten(name)}).", GET_AGAIN)
    return folder / name


def stored_picture(row: Mapping[str, Any], key: str, where: str) -> Image.Image:
    """The picture in a column of the hub's kind, `{bytes, path}` or bytes. DataError if there is none."""
    value = row.get(key)
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DataError(f"{where}: the field {key!r} holds no picture.", GET_AGAIN)
    return decode_picture(content, f"{where}, {key}")


def picture_file(path: Path) -> Image.Image:
    """The picture in a file, in the mode it is stored in. DataError if it is missing, damaged or too large."""
    return decode_picture(read_bytes(path, remedy=GET_AGAIN), str(path))


def decode_picture(content: bytes, where: str) -> Image.Image:
    """A picture of at most `MAX_PIXELS`, in the mode it is stored in, not turned by EXIF: the scorers do not either.

    Raises:
        DataError: damaged, or too large. `where` names it.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{where}: a picture of {picture.width} x {picture.height} pixels.", GET_AGAIN)
            picture.load()
            return picture.copy()
    except DataError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{where}: not a readable picture ({_first_line(error)}).", GET_AGAIN) from error


def refuse_archive(data: Path) -> None:
    """Refuse what is not a folder. DataError says what it is."""
    if data.is_dir():
        return
    if not data.exists():
        raise DataError(f"{data} does not exist.", "Check the path.")
    what = "an archive" if zipfile.is_zipfile(data) or data.suffix in (".tar", ".gz", ".tgz") else "a file"
    raise DataError(f"{data} is {what}, not the folder of the benchmark.", "Unpack it, and name the folder.")
