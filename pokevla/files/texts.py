"""Small text and JSON files, always in UTF-8."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pokevla.errors import DataError, PokeVLAError
from pokevla.files.failures import FREE_SPACE
from pokevla.files.writing import atomic_file


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
        file.write(text.encode())


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


def read_json(path: Path, *, kind: type[PokeVLAError] = DataError, remedy: str | None = None) -> Any:
    """Content of a JSON file. Raises `kind` with `remedy` if it is missing, unreadable or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise kind(f"{path} is missing.", remedy) from error
    except OSError as error:
        raise kind(f"{path} cannot be read ({error.strerror}).", remedy) from error
    except ValueError as error:
        raise kind(f"{path} is damaged: not JSON ({error}).", remedy) from error
