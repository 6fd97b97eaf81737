"""TFRecord files: records with a length and two checksums each.

    uint64 length | uint32 masked crc32c of the length | content | uint32 masked crc32c of the content

(tensorflow/tensorflow, tensorflow/python/lib/io/python_io.py), little-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pokevla.data.recordings.faults import Fault
from pokevla.errors import EnvironmentSetupError
from pokevla.files.texts import open_regular

REMEDY = "Download this file again."
_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
_MASK = 0xA282EAD8


@dataclass(frozen=True)
class Record:
    """Where a record's content is, in bytes."""

    start: int
    size: int


def import_crc32c() -> Any:
    """The package google_crc32c. Raises EnvironmentSetupError if it is not installed."""
    try:
        import google_crc32c
    except ImportError as error:
        raise EnvironmentSetupError(
            "TFRecord files are checked with google-crc32c, which is not installed.",
            "Install it with: pip install 'pokevla[recordings]'",
        ) from error
    return google_crc32c


def masked_crc32c(content: bytes) -> int:
    """The checksum of TFRecord."""
    crc = int(import_crc32c().value(content))
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def index_records(path: Path) -> tuple[list[Record], str | None]:
    """The records of a file, by their lengths alone, and what is wrong with the file after the last of them (None if
    nothing is)."""
    records: list[Record] = []
    try:
        with open_regular(path) as file:
            for record in _walk(file, os.fstat(file.fileno()).st_size, path):
                records.append(record)
    except Fault as fault:
        return records, fault.message
    except OSError as error:
        return records, f"{path} cannot be read ({error.strerror})."
    return records, None


def _walk(file: BinaryIO, end: int, path: Path) -> Iterator[Record]:
    position = 0
    while position < end:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise Fault("unreadable", f"{path} ends within a record, at byte {end}: it is truncated.", REMEDY)
        size, crc = _HEADER.unpack(header)
        if masked_crc32c(header[: _LENGTH.size]) != crc:
            raise Fault(
                "unreadable", f"{path} is damaged at byte {position}: the checksum of a length differs.", REMEDY
            )
        start = position + _HEADER.size
        position = start + size + _FOOTER.size
        if position > end:
            raise Fault("unreadable", f"{path} ends within a record, at byte {end}: it is truncated.", REMEDY)
        yield Record(start, size)
        file.seek(position)


def read_record(path: Path, record: Record) -> bytes:
    """Content of a record, checked.

    Raises:
        Fault: the file is missing, shorter than its index, or the checksum differs.
    """
    try:
        with path.open("rb") as file:
            file.seek(record.start)
            content = file.read(record.size)
            footer = file.read(_FOOTER.size)
    except OSError as error:
        raise Fault("unreadable", f"{path} cannot be read ({error.strerror}).", REMEDY) from error
    if len(content) != record.size or len(footer) != _FOOTER.size:
        raise Fault("unreadable", f"{path} is truncated within the record at byte {record.start}.", REMEDY)
    if masked_crc32c(content) != _FOOTER.unpack(footer)[0]:
        raise Fault(
            "unreadable", f"{path} is damaged in the record at byte {record.start}: its checksum differs.", REMEDY
        )
    return content
