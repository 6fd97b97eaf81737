"""Small text and JSON files, always in UTF-8, read within bounds: a damaged file is an error, never a hang."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from pokevla.errors import DataError, PokeVLAError
from pokevla.files.failures import FREE_SPACE
from pokevla.files.writing import atomic_file

MAX_BYTES = 64 << 20
"""Largest text or JSON file that is read into memory. A `dataset.json` of 100,000 shards has 12 MB."""
MAX_DEPTH = 64
"""Deepest nesting of lists and mappings in JSON. Ours have at most six levels."""
_MAX_DIGITS = 20
"""Digits of the largest whole number, 2**64 - 1."""


def write_text(
    path: Path,
    text: str,
    *,
    durable: bool = True,
    kind: type[PokeVLAError] = DataError,
    remedy: str = FREE_SPACE,
) -> None:
    """Write a small text file atomically. Raises what `atomic_file` raises."""
    with atomic_file(path, "wb", durable=durable, kind=kind, remedy=remedy) as file:
        # A path that is not UTF-8 holds lone surrogates. Their backslash form is also the escape of JSON and YAML.
        file.write(text.encode(errors="backslashreplace"))


def write_json(
    path: Path,
    content: Any,
    *,
    indent: int | None = 2,
    sort_keys: bool = False,
    ensure_ascii: bool = True,
    durable: bool = True,
    kind: type[PokeVLAError] = DataError,
    remedy: str = FREE_SPACE,
) -> None:
    """Write JSON and a newline atomically. Raises what `atomic_file` raises."""
    text = json.dumps(content, indent=indent, sort_keys=sort_keys, ensure_ascii=ensure_ascii)
    write_text(path, text + "\n", durable=durable, kind=kind, remedy=remedy)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, without buffer.

    Raises:
        OSError: it cannot be opened, or is a FIFO, a device or a folder. Opening a FIFO would wait for a writer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return open(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(
    path: Path,
    *,
    max_bytes: int = MAX_BYTES,
    kind: type[PokeVLAError] = DataError,
    remedy: str | None = None,
) -> bytes:
    """Content of a regular file of at most `max_bytes`.

    Raises:
        PokeVLAError: a `kind` with `remedy`: it is missing, unreadable, too large or not a regular file.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = bytearray()
            while chunk := file.read(max_bytes + 1 - len(content)):  # the file may grow while it is read
                content += chunk
    except FileNotFoundError as error:
        raise kind(f"{path} is missing.", remedy) from error
    except OSError as error:
        raise kind(f"{path} cannot be read ({error.strerror}).", remedy) from error
    if len(content) > max_bytes:
        raise kind(f"{path} has {max(size, len(content))} bytes, more than the {max_bytes} of such a file.", remedy)
    return bytes(content)


def read_text(
    path: Path,
    *,
    max_bytes: int = MAX_BYTES,
    kind: type[PokeVLAError] = DataError,
    remedy: str | None = None,
) -> str:
    """Text of a file, without a byte order mark. Raises `kind` also if it is not UTF-8; see `read_bytes`."""
    content = read_bytes(path, max_bytes=max_bytes, kind=kind, remedy=remedy)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise kind(f"{path}:{line} is not UTF-8 text (byte {error.start}).", remedy) from error


def read_json(
    path: Path,
    *,
    max_bytes: int = MAX_BYTES,
    non_finite: bool = False,
    kind: type[PokeVLAError] = DataError,
    remedy: str | None = None,
) -> Any:
    """Content of a JSON file. Raises what `read_text` and `parse_json` raise."""
    text = read_text(path, max_bytes=max_bytes, kind=kind, remedy=remedy)
    return parse_json(text, path, non_finite=non_finite, kind=kind, remedy=remedy)


def read_json_object(
    path: Path,
    *,
    max_bytes: int = MAX_BYTES,
    kind: type[PokeVLAError] = DataError,
    remedy: str | None = None,
) -> dict[str, Any]:
    """Content of a JSON file that holds an object. Raises what `read_json` raises."""
    content = read_json(path, max_bytes=max_bytes, kind=kind, remedy=remedy)
    if not isinstance(content, dict):
        raise kind(f"{path} is damaged: it does not hold an object ({{...}}).", remedy)
    return content


def parse_json(
    text: str | bytes,
    where: Path | str,
    *,
    non_finite: bool = False,
    kind: type[PokeVLAError] = DataError,
    remedy: str | None = None,
) -> Any:
    """Value of JSON text. `where` is its file, or file and line, for messages. `non_finite` allows NaN and Infinity as
    Python writes them.

    Raises:
        PokeVLAError: a `kind` with `remedy`: not JSON, nested deeper than MAX_DEPTH, a key given twice, a number
            beyond 64 bits, or (unless allowed) NaN or Infinity, which JSON does not have.
    """
    try:
        content = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_int=_whole_number,
            parse_float=_finite_number,
            parse_constant=float if non_finite else _refuse_constant,
        )
        _refuse_depth(content)
    except RecursionError as error:
        raise kind(f"{where} is damaged: nested too deeply.", remedy) from error
    except ValueError as error:
        raise kind(f"{where} is damaged: not JSON ({error}).", remedy) from error
    return content


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shorten(repr(twice))} is given twice")
    return content


def _whole_number(digits: str) -> int:
    if len(digits.lstrip("-")) > _MAX_DIGITS or not -(2**63) <= int(digits) < 2**64:
        raise ValueError(f"the number {shorten(digits)} is too large")
    return int(digits)


def _finite_number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {shorten(digits)} is too large")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _refuse_depth(content: Any) -> None:
    """RecursionError if `content` is nested deeper than MAX_DEPTH, so that nothing that walks it has to check."""
    level = [content]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise RecursionError


def shorten(text: str, width: int = 60) -> str:
    """`text` in at most `width` characters, for a message."""
    return text if len(text) <= width else f"{text[: width - 3]}..."
